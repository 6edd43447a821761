// If and Loop: their parts.
#pragma once

#include "graph/ir/graph.h"

namespace onnxpress {

// The graph that an If runs. Throws Error when the node has none.
const Graph& if_branch(const Node& node, bool condition);

// The graph that a Loop runs in every step: inputs are the step's number, the condition and the
// state; outputs the next condition, the next state and what the steps' outputs are stacked of.
// Inputs of the node: trip count and condition (both optional), then the state.
const Graph& loop_body(const Node& node);

}  // namespace onnxpress
