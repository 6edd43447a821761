// When ONNX got its operators.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "graph/ir/graph.h"

namespace onnxpress {

// The first ai.onnx opset that defines the operator in the form that this program writes. Nothing
// for what ONNX does not define.
std::optional<std::int64_t> introduced_in(std::string_view op_type);

// Why the graph cannot have a new `op_type` of ONNX: "needs opset 20 for Gelu, the model has 17".
std::optional<std::string> missing_operator(const Graph& graph, std::string_view op_type);

}  // namespace onnxpress
