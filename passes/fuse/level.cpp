#include "passes/fuse/level.h"

#include "graph/ops/upgrade.h"
#include "passes/common/rewriting.h"

namespace onnxpress {

bool is_runtime_level(const Options& options) { return options.text("level") == "runtime"; }

std::int64_t opset_for(const Model& model, std::int64_t opset, const Rule& rule) {
  if (model.graph.opset() >= opset) return 0;
  const std::unique_ptr<Model> tried = model.clone();
  if (apply_rules(*tried, {rule}).applied.at(rule.name) == 0) return 0;
  return upgrade_obstacles(model, opset).empty() ? opset : 0;
}

Outcome LevelRulePass::run(Model& model, PassContext& context) const {
  if (!is_runtime_level(context.options)) return RulePass::run(model, context);
  const WithRuntimeDomain imported(model);
  return RulePass::run(model, context);
}

}  // namespace onnxpress
