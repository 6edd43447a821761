// Which nodes of the main graph compute in a narrower float type.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/ops/float_types.h"
#include "passes/convert/value_ranges.h"
#include "passes/core/selector.h"

namespace onnxpress {

struct FloatRequest {
  DType type = DType::float16;
  double largest = 65504;               // that a value may reach
  const Selector* keep = nullptr;       // nodes that stay float32; nullptr: none
  const ValueRanges* ranges = nullptr;  // nullptr: not known
};

struct FloatPlan {
  std::unordered_map<const Node*, NarrowFloatForm> narrow;
  std::unordered_map<const Node*, std::string>
      left;                  // nodes with float32 tensors, and why they stay
  std::vector<Node*> nodes;  // both, in graph order

  const NarrowFloatForm* form(const Node* node) const {
    const auto found = narrow.find(node);
    return found == narrow.end() ? nullptr : &found->second;
  }
};

// Nodes stay float32 that are to be kept, have no form in the type for the model's opset, compute
// shapes, or read or make a value or constant that does not fit the type. Of the rest, those that
// multiply matrices or read large constants are narrow, and the others where that leaves the fewest
// Casts.
FloatPlan plan_floats(const Graph& graph, const TypeInference& types, const FloatRequest& request);

}  // namespace onnxpress
