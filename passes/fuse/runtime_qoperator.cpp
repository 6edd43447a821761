// Operators between DequantizeLinear and QuantizeLinear as ONNX Runtime's operators on 8-bit codes.
#include "passes/common/qoperator.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"

namespace onnxpress {
namespace {

class RuntimeQOperator : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_qoperator",
      .summary = "operators between DequantizeLinear and QuantizeLinear become operators on codes "
                 "(QLinearConv, ONNX Runtime's QGemm, QLinearAdd ...)",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 90};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return qoperator_rules(true);
  }
};

}  // namespace

PASS(runtime_qoperator) { registry.add(std::make_unique<RuntimeQOperator>()); }

}  // namespace onnxpress
