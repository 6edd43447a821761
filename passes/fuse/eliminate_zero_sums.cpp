// Removes what adds nothing but makes +0 of -0, which `simplify` therefore leaves: x + 0, sums and
// means over one element.
#include "graph/ops/constant.h"
#include "graph/ops/pool.h"
#include "passes/common/identities.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

Source zero_operand(const Match& match) {
  for (const std::size_t index : {std::size_t{1}, std::size_t{0}}) {
    const auto constant = constant_contents(match.root->input(index));
    if (constant && is_all(*constant, 0) && match.root->input(1 - index))
      return unless_broadcast(match, 1 - index, *constant);
    if (match.root->is("Sub")) break;
  }
  return {};
}

Source average_pool(const Match& match) {
  return takes_each_cell(PoolAttrs::from(*match.root).window) ? Source{match.root->input(0)}
                                                              : Source{};
}

class EliminateZeroSums : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "eliminate_zero_sums",
      .summary = "removes additions of 0 and averages of one element",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 5};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {identity_rule("eliminate_zero_operand", "Add|Sub", zero_operand),
            identity_rule("eliminate_sum_of_one", "ReduceSum|ReduceMean", if_over_ones),
            identity_rule("eliminate_global_average", "GlobalAveragePool",
                          [](const Match& match) { return if_same_type(match); }),
            identity_rule("eliminate_average_pool", "AveragePool", average_pool)};
  }
};

}  // namespace

PASS(eliminate_zero_sums) { registry.add(std::make_unique<EliminateZeroSums>()); }

}  // namespace onnxpress
