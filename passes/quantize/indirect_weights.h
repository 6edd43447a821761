// Weights that reach their operator through operators that only move elements.
#pragma once

#include <string_view>
#include <vector>

#include "passes/common/weights.h"
#include "passes/core/pass.h"
#include "passes/core/selector.h"

namespace onnxpress {

struct IndirectWeights {
  // Constants that become a weight, element by element, through Transpose, Reshape, Squeeze,
  // Unsqueeze, Flatten, Identity and Cast to another float type. `node` and `operand` are where they
  // arrive, so that node->input(operand) is not `value`; axes are those of the constant.
  std::vector<Weight> moved;
  // One for every other constant that becomes a part of a weight, through Slice, Concat and the like:
  // it stays what it is. The largest first.
  std::vector<NearMiss> left;
};

// Floating-point constants of the main graph and its subgraphs that no operator reads as its weight
// but that become one. Those in `direct` are known already.
IndirectWeights indirect_weights(const Model& model, const Selector& selector, std::string_view pass,
                                 const std::vector<Weight>& direct);

}  // namespace onnxpress
