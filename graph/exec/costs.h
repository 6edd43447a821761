// Costs node by node: internal to graph/exec.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "graph/ir/model.h"

namespace onnxpress {

// Calls fn for every node that has a cost rule (functions inlined, subgraphs once each), symbolic
// and unknown dims of inputs taken as 1; nothing where shapes are not known.
void for_each_cost(const Model& model,
                   const std::function<void(const Node&, std::optional<std::int64_t> macs)>& fn);

}  // namespace onnxpress
