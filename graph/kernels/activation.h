// Operators of one tensor, element by element, as operations that kernels apply to a result.
#pragma once

#include <optional>

#include "graph/ops/kernel.h"

namespace onnxpress {

// What the node computes of its first input, float32; nothing when it is no such operator, or its
// parameters are not constant.
std::optional<PostOp> as_activation(const PrepareContext& context);

}  // namespace onnxpress
