// Weights that reach their operator through operators that only move elements.
#pragma once

#include <string_view>
#include <vector>

#include "passes/core/pass.h"
#include "passes/core/selector.h"

namespace onnxpress {

// One near miss of `pass` for every floating-point constant of the main graph or a subgraph that
// no operator reads as its weight, but that becomes one through Slice, Concat, Transpose and the
// like: such weights stay what they are, because only a constant can be replaced by its codes. The
// largest first; the subject is the operator that reads it in the end.
std::vector<NearMiss> indirect_weights(const Model& model, const Selector& selector,
                                       std::string_view pass);

}  // namespace onnxpress
