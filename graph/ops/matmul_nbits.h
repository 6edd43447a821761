// MatMulNBits: a product with weights of 2, 4 or 8 bits in blocks along the depth.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ops/infer.h"
#include "graph/ops/packed_codes.h"

namespace onnxpress {

struct MatMulNBitsAttrs {
  std::int64_t depth = 0;    // K
  std::int64_t columns = 0;  // N
  std::int64_t bits = 4;
  std::int64_t block_size = 0;
  std::int64_t accuracy_level = 0;  // of the runtime's kernel; 0: not said

  // Throws Error for sizes that make no weights, and for weights prepacked for one processor.
  static MatMulNBitsAttrs from(const Node& node);
  Attributes to_attributes() const;
  std::int64_t blocks() const { return (depth + block_size - 1) / block_size; }
};

// The weights as numbers: (code - zero point) * scale, one row of `depth` for each column of the
// product. The tensors must outlive it.
class NBitsWeights {
 public:
  // codes uint8 [columns, blocks, block_size * bits / 8], low bits first; scales [columns, blocks];
  // zero points of the scales' type [columns, blocks], or packed uint8 [columns, ceil(blocks * bits
  // / 8)], or nullptr: 2^(bits - 1); group_index [depth] (or a whole number of blocks), the block
  // whose scale and zero point an element has, or nullptr. Scales and zero points may be flat.
  // Throws Error for anything else.
  NBitsWeights(const MatMulNBitsAttrs& attrs, const Tensor& codes, const Tensor& scales,
               const Tensor* zero_points, const Tensor* group_index);
  // Rows [begin, end) to `out`.
  void dequantize(std::int64_t begin, std::int64_t end, float* out) const;

 private:
  MatMulNBitsAttrs attrs_;
  std::int64_t row_codes_, row_zeros_;  // elements to a row, unused ones included
  PackedCodes codes_;
  std::vector<float> scales_;
  std::vector<float> zeros_;  // by scale; empty: packed, or the middle
  std::optional<PackedCodes> packed_zeros_;
  std::vector<std::int64_t> groups_;  // empty: by position
};

}  // namespace onnxpress
