// FusedConv and FusedGemm of com.microsoft.
#pragma once

#include <optional>

#include "graph/ops/call.h"

namespace onnxpress {

// A Conv or Gemm and the activation that reads it as one operator, with the inputs of the former.
// Nothing where ONNX Runtime has none for this activation, or its parameters are not constant.
std::optional<OpCall> fused_activation_call(const Node& linear, const Node& activation);

}  // namespace onnxpress
