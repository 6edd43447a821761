// Elementwise loops on floats, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "graph/ops/kernel.h"

namespace onnxpress {

enum class BinaryOp { add, subtract, multiply, divide, minimum, maximum, prelu };

// out[i] = op(a[i * a_stride], b[i * b_stride]) for i < count; strides are 0 or 1. `out` may be `a`
// or `b` where their stride is 1. prelu: a < 0 ? a * b : a. Minimum and maximum of NaN are NaN.
void binary_loop(BinaryOp op, const float* a, std::int64_t a_stride, const float* b,
                 std::int64_t b_stride, float* out, std::int64_t count);

// Applies `op` to data[0, count) in place; `operand` has as many elements, for operations that have
// one. NaN stays NaN (clip and relu included).
void post_op_loop(const PostOp& op, float* data, const float* operand, std::int64_t count);

// Softmax of each of `rows` runs of `size` elements, which lie one after the other; `out` may be
// `in`.
void softmax_loop(const float* in, float* out, std::int64_t rows, std::int64_t size);

// LayerNormalization of each of `rows` runs of `size` elements: (x - mean) / sqrt(variance +
// epsilon) * scale + bias; `bias` may be null. With `is_rms`: x / sqrt(mean square + epsilon) *
// scale.
void layer_norm_loop(const float* in, const float* scale, const float* bias, float* out,
                     std::int64_t rows, std::int64_t size, float epsilon, bool is_rms);

}  // namespace onnxpress
