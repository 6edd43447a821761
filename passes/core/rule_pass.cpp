#include "passes/core/rule_pass.h"

namespace onnxpress {

Outcome RulePass::run(Model& model, PassContext& context) const {
  RuleCounts counts = apply_rules(model, rules(model, context.options));
  Outcome outcome;
  for (const auto& [rule, count] : counts.applied) {
    outcome.counts[rule] = count;
    outcome.changed |= count > 0;
  }
  if (counts.limit_reached)
    outcome.notes.push_back(fmt::format("{} stopped at its limit of rewrites", info().name));
  if (context.near_misses) {
    for (RuleCounts::Miss& miss : counts.misses)
      context.near_misses->push_back(
          {std::move(miss.rule), std::move(miss.subject), std::move(miss.reason)});
  }
  return outcome;
}

}  // namespace onnxpress
