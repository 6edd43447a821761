// Costs node by node: internal to graph/exec.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "graph/ir/model.h"
#include "graph/ops/infer.h"

namespace onnxpress {

// A model with its functions inlined and the types of its values, symbolic and unknown dims of
// inputs taken as 1; where a rule contradicts that guess (a window longer than 1), they stay open.
class TypedModel {
 public:
  explicit TypedModel(const Model& model);

  const Model& model() const { return *model_; }
  const TypeInference& types() const { return *types_; }
  bool open_dims_are_1() const { return open_dims_are_1_; }

 private:
  std::unique_ptr<Model> model_;
  std::unique_ptr<TypeInference> types_;
  bool open_dims_are_1_ = true;
};

// Calls fn for every node that has a cost rule (subgraphs once each); nothing where shapes are not
// known.
void for_each_cost(const TypedModel& typed,
                   const std::function<void(const Node&, std::optional<std::int64_t> macs)>& fn);

// The most that is alive at once when nodes run in the file's order: graph inputs and outputs,
// intermediate values from their producer to their last reader, and what a subgraph holds while its
// node runs. Weights, and what only weights go into, are not counted; what only renames elements
// (Reshape, Identity, ...) takes no memory of its own.
struct ActivationMemory {
  std::int64_t peak_bytes = 0;
  const Node* at = nullptr;         // the node that runs at the peak; null without nodes
  std::int64_t unknown_values = 0;  // left out for want of a shape
};
ActivationMemory activation_memory(const TypedModel& typed);

}  // namespace onnxpress
