// Convolutions of 8-bit codes that have a filter for every channel, on AVX-512 VNNI.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ops/window.h"

namespace onnxpress {

// y = saturate(round_to_even(scales[c] * (sum of (x - x_zero) * w[c] + biases[c])) + y_zero). Images lie with
// their channels last. Codes of int8 are taken with their top bit flipped, as uint8, and so are zero points.
struct DepthwiseSetup {
  WindowGeometry geometry{};  // of at most two axes
  std::int64_t channels = 0;
  std::span<const std::int8_t> weights;  // [channels, rows, columns]
  std::span<const float> scales;         // one, or one for each channel
  std::span<const std::int32_t> biases;  // none, or one for each channel
  std::uint8_t x_zero = 0, y_zero = 0;
  std::uint8_t x_flip = 0, y_flip = 0;  // 0x80 for int8
};

class DepthwiseCodes {
 public:
  // Whether the processor has the instructions, and a block of channels is filled well enough.
  static bool is_fast_for(std::int64_t channels, const WindowGeometry& geometry);

  explicit DepthwiseCodes(const DepthwiseSetup& setup);
  void run(ThreadPool& pool, const std::uint8_t* x, std::uint8_t* y, std::int64_t images) const;

 private:
  // Of one block of channels, in the order of lanes.
  struct Block {
    std::int64_t first = 0;  // channel
    std::uint64_t mask = 0;  // of the channels that exist
    std::vector<std::int8_t> weights;
    std::vector<std::int32_t> biases;
    std::vector<float> scales;
  };

  // The same, for the loops.
  struct Operands {
    std::int64_t first;
    std::uint64_t mask;
    const std::int8_t* weights;
    const std::int32_t* biases;
    const float* scales;
  };

  Block make_block(const DepthwiseSetup& setup, std::int64_t first) const;
  // `count` rows of outputs from row y on, at most rows_at_once_.
  void run_rows(const std::uint8_t* image, std::uint8_t* output, std::int64_t y, std::int64_t count) const;
  void gather_columns(const Operands& block, const std::uint8_t* image, std::int64_t y, std::uint8_t* columns) const;
  template <int rows, int width>
  void add_products(const Operands& block, const std::uint8_t* columns, std::uint8_t* output,
                    std::int64_t count) const;

  WindowGeometry geometry_;
  std::int64_t channels_;
  std::int64_t quads_;         // fours of rows that are gathered for the window
  std::int64_t rows_at_once_;  // of outputs: 2 where their windows fit into the same fours
  std::int64_t columns_;       // that a row of outputs reads
  std::int64_t first_inside_, end_inside_;  // of them, those of the image
  std::uint8_t x_zero_, y_zero_, x_flip_, y_flip_;
  std::vector<Block> blocks_;
};

}  // namespace onnxpress
