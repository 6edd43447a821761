#include "graph/kernels/recurrent_weights.h"

#include <algorithm>
#include <utility>

#include "graph/kernels/recurrent_loops.h"

namespace onnxpress {

RecurrentLayout RecurrentLayout::of(const RecurrentAttrs& attrs) {
  switch (attrs.cell) {
    case RecurrentCell::rnn:
      return {.units = 4, .slots = 4, .input = {.vectors = 4}, .recurrent = {.vectors = 4}};
    case RecurrentCell::lstm:
      return {.units = 1,
              .slots = 4,
              .input = {.vectors = 4, .gates = {0, 1, 2, 3}},
              .recurrent = {.vectors = 4, .gates = {0, 1, 2, 3}}};
    case RecurrentCell::gru:
      break;
  }
  const RecurrentPanel input{.vectors = 3, .gates = {2, 0, 1}};
  if (attrs.linear_before_reset)
    return {.units = 1,
            .slots = 4,
            .input = input,
            .recurrent = {.vectors = 3, .gates = {0, 1, 2}, .slot = 1}};
  return {.units = 1,
          .slots = 3,
          .input = input,
          .recurrent = {.vectors = 2, .gates = {0, 1}, .slot = 1},
          .reset = {.vectors = 1, .gates = {2}}};
}

RecurrentWeights::RecurrentWeights(RecurrentAttrs attrs, const Tensor& w, const Tensor& r,
                                   const Tensor* b)
    : attrs_(std::move(attrs)),
      layout_(RecurrentLayout::of(attrs_)),
      lanes_(vector_lanes()),
      hidden_(r.dim(2)),
      input_(w.dim(2)),
      direction_tiles_((hidden_ + units() - 1) / units()),
      w_(pack(layout_.input, w, input_)),
      r_(pack(layout_.recurrent, r, hidden_)),
      reset_(pack(layout_.reset, r, hidden_)),
      bias_(pack_bias(b)) {}

// body(column in the tile's panel, row of the gates' weights) for the units of vector `v`.
template <class Body>
void RecurrentWeights::each_lane(const RecurrentPanel& panel, std::int64_t tile, std::int64_t v,
                                 Body&& body) const {
  const std::int64_t first =
      tile % direction_tiles_ * units() + (layout_.units > 1 ? v * lanes_ : 0);
  const std::int64_t gate = panel.gates[static_cast<std::size_t>(v)];
  for (std::int64_t lane = 0; lane < lanes_; ++lane)
    if (first + lane < hidden_) body(v * lanes_ + lane, gate * hidden_ + first + lane);
}

AlignedBytes RecurrentWeights::pack(const RecurrentPanel& panel, const Tensor& weights,
                                    std::int64_t depth) const {
  const std::int64_t width = panel.vectors * lanes_;
  AlignedBytes panels = allocate(tiles() * depth * width);
  std::fill_n(floats(panels), tiles() * depth * width, 0.0f);
  const float* const from = weights.data<float>().data();
  for (std::int64_t tile = 0; tile < tiles(); ++tile) {
    float* const to = floats(panels) + tile * depth * width;
    const std::int64_t above = tile / direction_tiles_ * weights.dim(1);
    for (std::int64_t v = 0; v < panel.vectors; ++v)
      each_lane(panel, tile, v, [&](std::int64_t column, std::int64_t row) {
        for (std::int64_t k = 0; k < depth; ++k)
          to[k * width + column] = from[(above + row) * depth + k];
      });
  }
  return panels;
}

// Wb + Rb; where the reset gate applies to Rb of the hidden gate, that in the slot of its own.
AlignedBytes RecurrentWeights::pack_bias(const Tensor* b) const {
  AlignedBytes biases = allocate(tiles() * stride());
  std::fill_n(floats(biases), tiles() * stride(), 0.0f);
  if (b == nullptr) return biases;
  const std::int64_t rows = attrs_.gates() * hidden_;
  const float* const from = b->data<float>().data();
  for (std::int64_t tile = 0; tile < tiles(); ++tile) {
    float* const to = floats(biases) + tile * stride();
    const float* const wb = from + tile / direction_tiles_ * 2 * rows;
    const float* const rb = wb + rows;
    for (std::int64_t v = 0; v < layout_.input.vectors; ++v)
      each_lane(layout_.input, tile, v, [&](std::int64_t column, std::int64_t row) {
        const bool apart = attrs_.linear_before_reset && row >= 2 * hidden_;
        to[column] = wb[row] + (apart ? 0.0f : rb[row]);
        if (apart) to[column + layout_.input.vectors * lanes_] = rb[row];
      });
  }
  return biases;
}

}  // namespace onnxpress
