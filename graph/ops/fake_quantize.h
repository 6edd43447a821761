// Fake quantization for training, as an operator of the training domain: what QuantizeLinear and DequantizeLinear give,
// with restricted levels, and scales that are learned. Never written to a file.
//
//   FakeQuantize(x, scale, zero point) {lowest, highest, axis, block_size, has_batch}
//     y = (clamp(round(x / s) + z, lowest, highest) - z) s, ties to even; s is |scale|, z the rounded zero point, which
//     is of the scale's dims and omitted where it is 0. `axis` and `block_size` as QuantizeLinear has them.
//
// Gradients are those of learned step size quantization (Esser et al. 2020, "Learned Step Size Quantization", equations
// 2 and 3, section 2.2), with a zero point as in LSQ+ (Bhalgat et al. 2020): with q = x / s, L = lowest - z and
// H = highest - z,
//   dx = dy where L < q < H, else 0;
//   ds = g sum dy (round(q) - q  where L < q < H; L where q <= L; H where q >= H);
//   dz = g sum dy (0             where L < q < H; -s elsewhere);
// summed over the N elements of a scale, g = 1 / sqrt(N max(H, -L)). With has_batch the leading axis, which counts
// samples, is not part of N.
#pragma once

#include <cstdint>

#include "graph/ops/quantize_linear.h"

namespace onnxpress {

struct FakeQuantizeAttrs {
  std::int64_t lowest = -128, highest = 127;  // codes
  QuantizeAttrs scales;                       // axis and block size
  bool has_batch = false;

  // Throws Error for levels that are out of order or that float32 does not hold exactly.
  static FakeQuantizeAttrs from(const Node& node);
  Attributes to_attributes() const;
};

}  // namespace onnxpress
