#include "passes/core/explained.h"

#include <algorithm>

#include "graph/base/error.h"
#include "passes/core/group.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

// Every run counts all rules, also those that did nothing, as "rule" or "member.rule": on a model
// without nodes it names them.
void add_rules(const PipelineStep& step, const Model& model, std::vector<std::string>& names) {
  const bool has_rules = dynamic_cast<const GroupPass*>(step.pass) != nullptr ||
                         dynamic_cast<const RulePass*>(step.pass) != nullptr;
  if (!has_rules) return;
  Model empty;
  empty.ir_version = model.ir_version;
  empty.opsets = model.opsets;
  ThreadPool pool(1);
  PassContext context{.options = step.options, .pool = pool};
  const Outcome outcome = step.pass->run(empty, context);
  for (const auto& [key, count] : outcome.counts.items())
    names.push_back(key.substr(key.find('.') + 1));
}

}  // namespace

std::vector<std::string> explained_names(const Pipeline& pipeline, const Model& model) {
  std::vector<std::string> names;
  for (const PipelineStep& step : pipeline.steps) {
    names.emplace_back(step.pass->info().name);
    for (const Pass* member : passes().members(step.pass->info().name))
      names.emplace_back(member->info().name);
    add_rules(step, model, names);
  }
  std::ranges::sort(names);
  const auto repeated = std::ranges::unique(names);
  names.erase(repeated.begin(), repeated.end());
  return names;
}

void check_explained(const std::string& name, const Pipeline& pipeline, const Model& model) {
  const std::vector<std::string> names = explained_names(pipeline, model);
  if (std::ranges::find(names, name) != names.end()) return;
  const std::string near = nearest_name(name, names);
  fail("--explain: no pass or rule of the pipeline is called '{}'{}", name,
       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

}  // namespace onnxpress
