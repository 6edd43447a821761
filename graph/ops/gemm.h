// Gemm: Y = alpha * A' * B' + beta * C.
#pragma once

#include "graph/ops/call.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress {

struct GemmAttrs {
  float alpha = 1;
  float beta = 1;
  bool transpose_a = false;
  bool transpose_b = false;

  bool operator==(const GemmAttrs&) const = default;

  static GemmAttrs from(const Node& node);
  Attributes to_attributes(std::int64_t opset) const;
};

// Element types that Gemm has taken since its first version: the real floating-point ones.
bool is_gemm_type(DType type);

// Whether Gemm may leave out C: since opset 11.
bool gemm_bias_is_optional(std::int64_t opset);

// [rows, depth] x [depth, columns] once transposed as the attributes say.
struct GemmSizes {
  std::int64_t rows, columns, depth;

  // Throws Error when the operands cannot be multiplied.
  static GemmSizes of(const GemmAttrs& attrs, const Dims& a, const Dims& b);
  std::int64_t macs() const { return rows * columns * depth; }
};

// What is known of the result's shape for what is known of the operands (nullptr: nothing).
Shape gemm_shape(const GemmAttrs& attrs, const Shape* a, const Shape* b);

// The gradient of C, summed over the axes it was broadcast along, times beta.
void put_gemm_bias(BackwardContext& context, const GemmAttrs& attrs, const Node& node);

// Axis roles of a product whose operands and bias are the inputs of those numbers.
OperandAxes gemm_axes(const Node& node, std::size_t a, std::size_t b, std::size_t c);

}  // namespace onnxpress
