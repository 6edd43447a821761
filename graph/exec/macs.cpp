#include <memory>
#include <utility>

#include "graph/exec/costs.h"
#include "graph/exec/engine.h"
#include "graph/exec/prepare.h"
#include "graph/ops/registry.h"
#include "graph/rewrite/inline.h"

namespace onnxpress {
namespace {

bool is_concrete(const Type* type) {
  return type && type->is_tensor() && type->shape && concrete(*type->shape);
}

bool knows_all_types(const Node& node, const TypeInference& inference) {
  for (const Value* value : node.inputs())
    if (value && !is_concrete(&inference.type(value))) return false;
  for (const Value* value : node.outputs())
    if (value && !is_concrete(&inference.type(value))) return false;
  return true;
}

}  // namespace

TypedModel::TypedModel(const Model& model) : model_(model.clone()) {
  inline_functions(*model_);
  types_ = std::make_unique<TypeInference>(*model_);
  for (const Value* input : model_->graph.inputs()) {
    Type type = input->type;
    if (type.shape)
      for (Dim& dim : *type.shape)
        if (!dim.is_known()) dim = 1;
    types_->set_input(input, std::move(type));
  }
  try {
    types_->run();
  } catch (const Error&) {
    open_dims_are_1_ = false;
    types_ = std::make_unique<TypeInference>(*model_);
    types_->run();
  }
}

void for_each_cost(const TypedModel& typed,
                   const std::function<void(const Node&, std::optional<std::int64_t>)>& fn) {
  const TypeInference& inference = typed.types();
  typed.model().graph.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) {
      const OpDef* op = operators().find(*node);
      if (!op || !op->cost) continue;
      if (!knows_all_types(*node, inference)) {
        fn(*node, std::nullopt);
        continue;
      }
      const NodePreparation context(
          *node, [&](const Value& value) { return &inference.type(&value); },
          [&](const Value& value) { return inference.known_value(&value); }, 1);
      fn(*node, op->cost(context).macs);
    }
  });
}

MacCount count_macs(const Model& model) {
  MacCount count;
  for_each_cost(TypedModel(model), [&](const Node&, std::optional<std::int64_t> macs) {
    count.macs += macs.value_or(0);
    count.unknown += !macs;
  });
  return count;
}

}  // namespace onnxpress
