// A rule that is wrong on purpose: the check after the pass must catch it.
#include "passes/core/plugin.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

class WrongRule final : public RulePass {
 public:
  const PassInfo& info() const override {
    static constexpr PassInfo info{.name = "wrong_rule",
                                   .summary = "takes Relu for nothing",
                                   .group = "simplify",
                                   .group_order = 50};
    return info;
  }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "forget_relu",
             .pattern = Pattern::op("Relu", "relu", {Pattern::any("x")}),
             .when = {},
             .replace = [](const Match& match, Patch& patch) {
               patch.replace(match.root->output(), match.value("x"));
             }}};
  }
};

}  // namespace

PASS(wrong_rule) { registry.add(std::make_unique<WrongRule>()); }

}  // namespace onnxpress

ONNXPRESS_PLUGIN(onnxpress::register_pass_wrong_rule)
