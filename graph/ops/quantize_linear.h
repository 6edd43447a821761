// QuantizeLinear and DequantizeLinear: per tensor, per axis, and in blocks.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct QuantizeAttrs {
  std::int64_t axis = 1;            // of per-axis and blocked scales
  std::int64_t block_size = 0;      // 0: not blocked
  bool saturate = true;             // QuantizeLinear to float8
  DType output = DType::undefined;  // output_dtype, when given
  // QuantizeLinear: what it divides in; undefined: float32, which holds every other type's numbers.
  DType precision = DType::undefined;
  bool per_axis = true;  // false before opset 13: one scale only

  static QuantizeAttrs from(const Node& node);
  // What differs from the defaults.
  Attributes to_attributes() const;
};

// First opset whose QuantizeLinear and DequantizeLinear take `type`, per axis and in blocks.
std::int64_t first_quantize_opset(DType type, bool per_axis, bool blocked);

// How scales belong to the elements of a tensor: element (o, a, i) of the tensor seen as
// [outer, axis, inner] has scale o * outer_step + a / block * axis_step + i * inner_step.
struct ScaleLayout {
  std::int64_t axis = 1, inner = 1, block = 1;
  std::int64_t outer_step = 0, axis_step = 0, inner_step = 0;

  // Throws Error when `scale` dims fit neither form.
  static ScaleLayout of(const Dims& dims, const Dims& scale, const QuantizeAttrs& attrs);
  // Scale index of the first element of row `row` = o * axis + a.
  std::int64_t row_start(std::int64_t row) const {
    return row / axis * outer_step + row % axis / block * axis_step;
  }
};

}  // namespace onnxpress
