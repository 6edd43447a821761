#include "passes/core/step_checks.h"

#include "passes/core/selector.h"

namespace onnxpress {

void check_needs(const PipelineStep& step, const RunOptions& options) {
  const Pass& pass = *step.pass;
  if (const std::string obstacle = options.support.checkpoint.empty() ? "" : pass.checkpoint_obstacle(step.options); !obstacle.empty())
    fail("pass '{}': {}", pass.info().name, obstacle);
  switch (pass.needs(step.options)) {
    case Needs::nothing:
    case Needs::optional_calibration:
      return;
    case Needs::calibration:
      require(options.calibration != nullptr, "pass '{}' needs calibration data (--calib)",
              pass.info().name);
      return;
    case Needs::training:
    case Needs::teacher:
      require(options.training != nullptr, "pass '{}' needs training data (--train)",
              pass.info().name);
      return;
  }
}

void check_selectors(const PipelineStep& step, const Model& model) {
  for (const OptionSpec& option : step.pass->info().options) {
    if (option.kind != OptionSpec::Kind::selector || !step.options.given(option.name)) continue;
    in_context(
        [&] { return fmt::format("pass {}, option {}", step.pass->info().name, option.name); },
        [&] { Selector(step.options.text(option.name)).require_all_match(model); });
  }
  in_context([&] { return fmt::format("pass {}", step.pass->info().name); },
             [&] { step.pass->check_model(model, step.options); });
}

std::optional<std::string> changed_interface(const Model& before, const Model& after) {
  const auto compare = [](std::string_view role, std::span<Value* const> was,
                          std::span<Value* const> is) -> std::optional<std::string> {
    if (was.size() != is.size())
      return fmt::format("the model has {} {}s, expected {}", is.size(), role, was.size());
    for (std::size_t i = 0; i < was.size(); ++i) {
      if (was[i]->name() != is[i]->name())
        return fmt::format("{} {} is now '{}', expected '{}'", role, i, is[i]->name(),
                           was[i]->name());
      if (was[i]->type != is[i]->type)
        return fmt::format("{} '{}' is now {}, expected {}", role, is[i]->name(),
                           to_string(is[i]->type), to_string(was[i]->type));
    }
    return std::nullopt;
  };
  if (auto changed = compare("required input", before.required_inputs(), after.required_inputs()))
    return changed;
  return compare("output", before.graph.outputs(), after.graph.outputs());
}

}  // namespace onnxpress
