// Derivatives of functions of one element on floats, compiled for every instruction set and chosen
// at run time.
#pragma once

#include <cstdint>

#include "graph/ops/kernel.h"

namespace onnxpress {

// Whether the derivative is computed from what the function gave, not from its argument.
constexpr bool derives_from_result(PostOp::Kind kind) {
  using Kind = PostOp::Kind;
  return kind == Kind::relu || kind == Kind::sigmoid || kind == Kind::tanh || kind == Kind::exp ||
         kind == Kind::sqrt || kind == Kind::reciprocal || kind == Kind::hard_sigmoid;
}

// dx[i] = dy[i] f'(values[i]) for i < count, for a function of one element (not add and multiply);
// `dx` may be `dy` or `values`. At the bounds of clip the slope is 1, at 0 that of abs is 0.
void derivative_loop(const PostOp& function, const float* values, const float* dy, float* dx,
                     std::int64_t count);

}  // namespace onnxpress
