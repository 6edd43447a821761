// Sizes of numpy's matmul, which MatMul and its integer forms share.
#pragma once

#include "graph/base/threads.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress {

// A stack of products: for each of `output` batch elements one [rows, depth] x [depth, columns].
struct MatMulSizes {
  Dims output;  // of the result
  std::int64_t rows, columns, depth;
  std::vector<std::int64_t> a_offsets, b_offsets;  // by product, in elements

  // Throws Error when the operands cannot be multiplied.
  static MatMulSizes of(const Dims& a, const Dims& b);
  std::int64_t macs() const;
};

// Each product added to its [rows, columns] of y. T: float, double, int64, uint64.
template <class T>
void add_products(ThreadPool& pool, const MatMulSizes& size, const T* a, const T* b, T* y);

// The result's shape; throws Error for operands that cannot be multiplied.
Shape matmul_shape(const Shape& a, const Shape& b);

// Axis roles of a product whose operands are the inputs of those numbers.
OperandAxes matmul_axes(const Node& node, std::size_t a, std::size_t b);

}  // namespace onnxpress
