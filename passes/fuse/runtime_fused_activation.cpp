// Conv and Gemm with the activation behind them as ONNX Runtime's FusedConv and FusedGemm.
#include "graph/ops/fused_activation.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

std::optional<std::string> obstacle(const Match& match) {
  const Node& linear = *match.node("linear");
  if (!fused_activation_call(linear, *match.root))
    return fmt::format("ONNX Runtime has no Fused{} with this {}", linear.op_type(),
                       match.root->op_type());
  const Value* const x = linear.input(0);
  const Type& type = match.type(x);
  if (type.elem != DType::float32)
    return fmt::format("'{}' is {}, expected float32", x->name(), to_string(type));
  return std::nullopt;
}

void fuse(const Match& match, Patch& patch) {
  const Node& linear = *match.node("linear");
  OpCall call = *fused_activation_call(linear, *match.root);
  Patch::NodeTemplate node{.op_type = call.op_type,
                           .domain = "com.microsoft",
                           .name = linear.name,
                           .attributes = std::move(call.attributes)};
  for (Value* input : linear.inputs()) node.inputs.emplace_back(input);
  patch.replace(match.root->output(), patch.node(std::move(node)));
}

class RuntimeFusedActivation : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_fused_activation",
      .summary =
          "Conv and Gemm take the activation behind them (ONNX Runtime's FusedConv, FusedGemm)",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 80};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return {
        {.name = "runtime_fused_activation",
         .pattern = Pattern::op("Relu|Sigmoid|Tanh|LeakyRelu|HardSigmoid|Clip|Softplus|Softsign|"
                                "Elu|ThresholdedRelu",
                                "activation", {Pattern::op("Conv|Gemm", "linear")}),
         .when = obstacle,
         .replace = fuse}};
  }
};

}  // namespace

PASS(runtime_fused_activation) { registry.add(std::make_unique<RuntimeFusedActivation>()); }

}  // namespace onnxpress
