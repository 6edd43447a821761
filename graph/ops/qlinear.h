// Attributes of operators on 8-bit codes, for the float operators that they stand for.
#pragma once

#include <optional>
#include <string>

#include "graph/ops/gemm.h"

namespace onnxpress {

// Of com.microsoft's QGemm; beta is 1 there.
Attributes qgemm_attributes(const GemmAttrs& attrs);
// Of com.microsoft's QLinearAveragePool; nothing for a window with gaps (dilations).
std::optional<Attributes> qlinear_average_pool_attributes(const Node& average_pool);
// Why the operator, which moves elements or takes the largest, cannot have 8-bit codes in place of
// its floats, or makes other values of them; nothing when it can.
std::optional<std::string> code_movement_obstacle(const Node& node);

}  // namespace onnxpress
