// Sizes of numpy's matmul, which MatMul and its integer forms share.
#pragma once

#include "graph/ops/infer.h"

namespace onnxpress {

// A stack of products: for each of `output` batch elements one [rows, depth] x [depth, columns].
struct MatMulSizes {
  Dims output;  // of the result
  std::int64_t rows, columns, depth;
  std::vector<std::int64_t> a_offsets, b_offsets;  // by product, in elements

  // Throws Error when the operands cannot be multiplied.
  static MatMulSizes of(const Dims& a, const Dims& b);
};

// The result's shape; throws Error for operands that cannot be multiplied.
Shape matmul_shape(const Shape& a, const Shape& b);

}  // namespace onnxpress
