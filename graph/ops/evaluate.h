// Running one node by itself on its reference kernel.
#pragma once

#include <span>
#include <vector>

#include "graph/ops/registry.h"

namespace onnxpress {

// Outputs of `node`, whose row is `op`, for the given inputs (nullptr: omitted); an omitted output
// is an undefined tensor. For shape computations and tests: everything else runs on the engine.
// Throws Error when the operator has no kernel or runs a subgraph.
std::vector<Tensor> evaluate(const OpDef& op, const Node& node,
                             std::span<const Tensor* const> inputs, ThreadPool& pool);

// Runs `kernel`; memory that cannot be had is an Error too.
void run_kernel(const Kernel& kernel, KernelContext& context);

}  // namespace onnxpress
