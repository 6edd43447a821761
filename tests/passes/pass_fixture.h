// Text in, pass, text out: runs one pass on a model and checks what every pass promises.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "graph/rewrite/pattern.h"
#include "passes/core/pipeline.h"
#include "passes/core/probe.h"

namespace onnxpress {

struct PassRun {
  std::unique_ptr<Model> before, after;
  Outcome outcome;
  std::vector<NearMiss> near_misses;
  std::vector<OutputError> errors;  // on random inputs, by the kernels the effect asks for

  // Of a near miss of that rule, or empty.
  std::string reason(std::string_view rule) const {
    for (const NearMiss& miss : near_misses)
      if (miss.rule == rule) return miss.reason;
    return {};
  }
};

struct PassRunOptions {
  std::uint64_t seed = 7;
  Dataset* calibration = nullptr;
  Dataset* training = nullptr;
  std::vector<TeacherSource> teachers = {};
  InputRanges input_ranges;
};

// Runs one step ("quantize_weights{bits=4}") and asserts: the model verifies before and after,
// `changed` is true exactly when the model differs, the interface stays, and outputs on random
// inputs keep the declared effect.
inline PassRun run_pass(std::string_view step_text, std::unique_ptr<Model> model,
                        const PassRunOptions& options = {}) {
  const Pipeline pipeline = Pipeline::parse(step_text);
  REQUIRE(pipeline.steps.size() == 1);
  const PipelineStep& step = pipeline.steps[0];
  const PassInfo& info = step.pass->info();
  PassRun run{.before = model->clone(), .after = std::move(model)};
  REQUIRE_NOTHROW(verify(*run.before));
  REQUIRE(step.pass->required_opset(*run.before, step.options) <= run.before->graph.opset());
  step.pass->check(step.options);

  ThreadPool pool(2);
  PassContext context{.options = step.options,
                      .pool = pool,
                      .seed = options.seed,
                      .calibration = options.calibration,
                      .training = options.training,
                      .teachers = options.teachers,
                      .near_misses = &run.near_misses};
  run.outcome = step.pass->run(*run.after, context);
  const std::string before_text = to_text(*run.before);
  const std::string after_text = to_text(*run.after);
  CAPTURE(before_text);
  CAPTURE(after_text);
  REQUIRE_NOTHROW(verify(*run.after));
  CHECK(run.outcome.changed ==
        (structural_hash(*run.before, true) != structural_hash(*run.after, true)));

  const auto interface = [](const Model& of) {
    std::string text;
    for (const Value* input : of.required_inputs())
      text += input->name() + ": " + to_string(input->type) + '\n';
    for (const Value* output : of.graph.outputs())
      text += output->name() + ": " + to_string(output->type) + '\n';
    return text;
  };
  CHECK(interface(*run.after) == interface(*run.before));

  REQUIRE(Engine::unsupported(*run.before).empty());
  REQUIRE(Engine::unsupported(*run.after).empty());
  std::vector<std::vector<Tensor>> probes;
  for (std::uint64_t i = 0; i < 3; ++i)
    probes.push_back(probe_inputs(*run.before, options.seed + i, options.input_ranges));
  const Effect effect = run.outcome.effect.value_or(info.effect);
  const bool reference = effect == Effect::exact;
  const ProbeOutputs expected = run_probes(*run.before, probes, reference, 1);
  const ProbeOutputs found = run_probes(*run.after, probes, reference, 1);
  run.errors = measure_errors(*run.after, expected, found);
  CHECK(broken_effect(effect, run.outcome.min_snr_db, expected, found, run.errors)
            .value_or("kept") == "kept");
  return run;
}

inline PassRun run_pass(std::string_view step, std::string_view model,
                        const PassRunOptions& options = {}) {
  return run_pass(step, parse_model(model), options);
}

// The pass turns `before` into `after` (types inside are not compared), and leaves that as it is.
inline PassRun check_pass(std::string_view step, std::string_view before, std::string_view after,
                          const PassRunOptions& options = {}) {
  PassRun run = run_pass(step, before, options);
  CHECK(to_text(*run.after, false) == to_text(*parse_model(after), false));
  const PassRun again = run_pass(step, run.after->clone(), options);
  CHECK_FALSE(again.outcome.changed);
  return run;
}

// The pass leaves the model alone.
inline PassRun check_unchanged(std::string_view step, std::string_view model,
                               const PassRunOptions& options = {}) {
  PassRun run = run_pass(step, model, options);
  CHECK_FALSE(run.outcome.changed);
  return run;
}

}  // namespace onnxpress
