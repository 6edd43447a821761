// Drops names that nothing reads: optional outputs, defaults of inputs, operator-set imports.
#include <algorithm>
#include <set>

#include "passes/core/registry.h"

namespace onnxpress {
namespace {

// Outputs that a node may leave out.
struct OptionalOutputs {
  std::string_view op_type;
  std::size_t first, last;  // first beyond
};
constexpr OptionalOutputs optional_outputs[] = {
    {"Dropout", 1, 2}, {"GRU", 0, 2}, {"LSTM", 0, 3},  {"LayerNormalization", 1, 3},
    {"MaxPool", 1, 2}, {"RNN", 0, 2}, {"Unique", 1, 4}};

std::int64_t omit_outputs(Node& node) {
  const auto row = std::ranges::find_if(
      optional_outputs, [&](const OptionalOutputs& each) { return node.is(each.op_type); });
  const std::vector<Value*> outputs = node.outputs();
  const auto is_unread = [](const Value* value) { return !value || value->is_unused(); };
  if (row == std::end(optional_outputs) || std::ranges::all_of(outputs, is_unread)) return 0;
  std::int64_t omitted = 0;
  for (std::size_t i = row->first; i < std::min(row->last, outputs.size()); ++i)
    if (outputs[i] && is_unread(outputs[i])) {
      node.graph().omit_node_output(&node, i);
      ++omitted;
    }
  return omitted;
}

// Of the main graph: required inputs stay, read or not.
std::int64_t drop_defaults(Graph& graph) {
  std::int64_t dropped = 0;
  for (Value* value : graph.initializers())
    if (value->is_input() && value->is_unused()) {
      graph.drop_input(value);
      graph.remove_initializer(value);
      ++dropped;
    }
  return dropped;
}

// ai.onnx stays (a model without any import is none), and so do the domains in `used`.
std::int64_t drop_imports(OpsetImports& imports, const Graph& root, std::set<std::string> used) {
  used.insert("");
  root.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) used.insert(node->domain());
  });
  return static_cast<std::int64_t>(
      std::erase_if(imports, [&](const auto& import) { return !used.contains(import.first); }));
}

class EliminateUnusedInterface : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "eliminate_unused_interface",
      .summary = "drops optional outputs, inputs with defaults and operator-set imports not in use",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 95};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext&) const override {
    std::int64_t outputs = 0;
    model.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) outputs += omit_outputs(*node);
    });
    const std::int64_t defaults = drop_defaults(model.graph);
    std::set<std::string> defined;
    for (const auto& function : model.functions) defined.insert(function->domain);
    std::int64_t imports = drop_imports(model.opsets, model.graph, std::move(defined));
    for (const auto& function : model.functions)
      imports += drop_imports(function->opsets, function->body, {});
    return {.changed = outputs + defaults + imports > 0,
            .counts = {{"outputs", outputs}, {"defaults", defaults}, {"imports", imports}}};
  }
};

}  // namespace

PASS(eliminate_unused_interface) { registry.add(std::make_unique<EliminateUnusedInterface>()); }

}  // namespace onnxpress
