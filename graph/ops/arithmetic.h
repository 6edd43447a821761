// Add, Sub, Mul and Div.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

// `op_type` of two operands whose second one may broadcast to the first, aligned at the last axes.
OpCall make_arithmetic(std::int64_t opset, std::string op_type);

}  // namespace onnxpress
