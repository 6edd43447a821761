#include "passes/fuse/level.h"

#include "graph/ops/upgrade.h"

namespace onnxpress {
namespace {

constexpr std::string_view runtime_domain = "com.microsoft";

bool uses_runtime_domain(const Graph& graph) {
  bool found = false;
  graph.for_each_graph([&](const Graph& nested) {
    for (const Node* node : nested.nodes()) found = found || node->domain() == runtime_domain;
  });
  return found;
}

}  // namespace

bool is_runtime_level(const Options& options) { return options.text("level") == "runtime"; }

std::int64_t opset_for(const Model& model, std::int64_t opset, const Rule& rule) {
  if (model.graph.opset() >= opset) return 0;
  const std::unique_ptr<Model> tried = model.clone();
  if (apply_rules(*tried, {rule}).applied.at(rule.name) == 0) return 0;
  return upgrade_obstacles(model, opset).empty() ? opset : 0;
}

Outcome LevelRulePass::run(Model& model, PassContext& context) const {
  if (!is_runtime_level(context.options)) return RulePass::run(model, context);
  struct Import {
    OpsetImports* opsets;
    const Graph* graph;
  };
  std::vector<Import> added;
  const auto import = [&](OpsetImports& opsets, const Graph& graph) {
    if (opsets.emplace(runtime_domain, 1).second) added.push_back({&opsets, &graph});
  };
  import(model.opsets, model.graph);
  for (const auto& function : model.functions) import(function->opsets, function->body);
  Outcome outcome = RulePass::run(model, context);
  for (const Import& made : added)
    if (!uses_runtime_domain(*made.graph)) made.opsets->erase(std::string(runtime_domain));
  return outcome;
}

}  // namespace onnxpress
