// Operators between DequantizeLinear and QuantizeLinear as ONNX Runtime's operators on 8-bit codes.
#include "passes/common/qoperator.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"

namespace onnxpress {
namespace {

// A result may be a quantum off where float arithmetic is rounded otherwise, and those behind it more:
// on noise, which probe inputs are, that was 21 dB for ResNet-50 and mobilefacenet. A wrong scale or
// zero point leaves nothing of an output.
constexpr double one_quantum_snr_db = 10;

class RuntimeQOperator : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_qoperator",
      .summary = "operators between DequantizeLinear and QuantizeLinear become operators on codes "
                 "(QLinearConv, ONNX Runtime's QGemm, QLinearAdd ...)",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 72};  // before an activation that the codes take over goes into a FusedConv

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    Outcome outcome = LevelRulePass::run(model, context);
    for (const auto& [rule, count] : outcome.counts.items()) {
      if (count == 0 || is_exact_qoperator_rule(rule)) continue;
      outcome.effect = Effect::approximate;
      outcome.min_snr_db = one_quantum_snr_db;
    }
    return outcome;
  }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return qoperator_rules(true);
  }
};

}  // namespace

PASS(runtime_qoperator) { registry.add(std::make_unique<RuntimeQOperator>()); }

}  // namespace onnxpress
