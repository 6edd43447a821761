// Weights of recurrent networks in the layout of the vector loops.
#pragma once

#include <array>
#include <cstdint>

#include "graph/kernels/scratch_memory.h"
#include "graph/ops/recurrent.h"

namespace onnxpress {

// Vectors of a tile's panels: gates (or, for RNN, vectors of units) by position.
struct RecurrentPanel {
  std::int64_t vectors = 0;
  std::array<std::int64_t, 4> gates{};
  std::int64_t slot = 0;  // where the product goes in the tile's gates, in vectors
};

// How a cell computes a tile.
struct RecurrentLayout {
  std::int64_t units = 0;  // vectors of units in a tile
  std::int64_t slots = 0;  // vectors of a tile's gates
  RecurrentPanel input, recurrent;
  RecurrentPanel reset;  // GRU: R of the hidden gate, multiplied by r * h

  static RecurrentLayout of(const RecurrentAttrs& attrs);
};

// Weights of all directions in panels. Tiles are counted over the directions.
class RecurrentWeights {
 public:
  RecurrentWeights(RecurrentAttrs attrs, const Tensor& w, const Tensor& r, const Tensor* b);

  const RecurrentAttrs& attrs() const { return attrs_; }
  const RecurrentLayout& layout() const { return layout_; }
  std::int64_t lanes() const { return lanes_; }
  std::int64_t units() const { return layout_.units * lanes_; }  // of a tile
  std::int64_t tiles() const { return attrs_.directions() * direction_tiles_; }
  std::int64_t direction_tiles() const { return direction_tiles_; }
  std::int64_t hidden() const { return hidden_; }
  std::int64_t input() const { return input_; }
  std::int64_t stride() const { return layout_.slots * lanes_; }  // of a tile's gates

  const float* w(std::int64_t tile) const { return at(w_, tile, layout_.input, input_); }
  const float* r(std::int64_t tile) const { return at(r_, tile, layout_.recurrent, hidden_); }
  const float* reset(std::int64_t tile) const { return at(reset_, tile, layout_.reset, hidden_); }
  // As many vectors as there are slots.
  const float* bias(std::int64_t tile) const { return floats(bias_) + tile * stride(); }

 private:
  static float* floats(const AlignedBytes& bytes) { return reinterpret_cast<float*>(bytes.get()); }
  static AlignedBytes allocate(std::int64_t count) {
    return allocate_aligned(static_cast<std::size_t>(count) * sizeof(float));
  }
  const float* at(const AlignedBytes& panels, std::int64_t tile, const RecurrentPanel& panel,
                  std::int64_t depth) const {
    return floats(panels) + tile * depth * panel.vectors * lanes_;
  }

  template <class Body>
  void each_lane(const RecurrentPanel& panel, std::int64_t tile, std::int64_t v, Body&& body) const;
  AlignedBytes pack(const RecurrentPanel& panel, const Tensor& weights, std::int64_t depth) const;
  AlignedBytes pack_bias(const Tensor* b) const;

  RecurrentAttrs attrs_;
  RecurrentLayout layout_;
  std::int64_t lanes_, hidden_, input_, direction_tiles_;
  AlignedBytes w_, r_, reset_, bias_;
};

}  // namespace onnxpress
