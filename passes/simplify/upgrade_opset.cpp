// Raises the ai.onnx opset; the rewrites are in graph/ops/upgrade.
#include "graph/ops/upgrade.h"

#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "target",
     .kind = OptionSpec::Kind::integer,
     .default_value = "21",
     .help = "ai.onnx opset to reach; a model already there or above is left alone",
     .min = 1,
     .max = static_cast<double>(newest_opset)},
};

class UpgradeOpset : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "upgrade_opset",
      .summary = "rewrites operators for a newer ai.onnx opset",
      .options = option_specs,
      .effect = Effect::exact};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const std::int64_t target = context.options.integer("target");
    const std::int64_t from = model.graph.opset();
    if (from == 0) return {.notes = {"the model imports no operators of ai.onnx"}};
    if (from == target) return {.notes = {fmt::format("already at opset {}", from)}};
    if (from > target)
      return {.notes = {fmt::format("LEFT AT OPSET {}: opsets are only raised, and {} is older", from, target)}};
    const std::int64_t rewritten = onnxpress::upgrade_opset(model, target);
    std::vector<std::string> notes = {
        fmt::format("opset {} to {}, IR version {}", from, target, model.ir_version)};
    if (target > newest_released_opset)
      notes.push_back(fmt::format("opset {} is not released yet: ONNX Runtime loads up to {}", target,
                                  newest_released_opset));
    return {.changed = true,
            .notes = std::move(notes),
            .counts = {{"nodes_rewritten", rewritten}}};
  }
};

}  // namespace

PASS(upgrade_opset) { registry.add(std::make_unique<UpgradeOpset>()); }

}  // namespace onnxpress
