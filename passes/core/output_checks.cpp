#include "passes/core/output_checks.h"

#include <algorithm>
#include <utility>

#include <fmt/ranges.h>

#include "graph/exec/engine.h"

namespace onnxpress {
namespace {

std::string not_running(const Error& error) {
  return fmt::format("the model given does not run on the probe inputs: {}", error.what());
}

}  // namespace

void OutputChecks::prepare(CurrentModel& given, const Pipeline& pipeline) {
  if (pipeline.steps.empty() || !can_run(*given.model, "")) return;
  try {
    const std::int64_t macs = shaped_macs(*given.model, options_.input_shapes);
    result_.generated_probes = options_.probes.empty();
    probes_ = options_.probes;
    if (result_.generated_probes)
      probes_ = generate_probes(*given.model, macs, options_.seed, options_.input_ranges, options_.input_shapes);
    const bool all_exact = std::ranges::all_of(
        pipeline.steps, [](const PipelineStep& step) { return step.pass->info().effect == Effect::exact; });
    if (all_exact) return;
    std::shared_ptr<const Model> model = given.model->clone();
    original_run_ = beside([model, probes = probes_, kernels = quick_kernels(), count = threads(quick_kernels(), macs)] {
      return run_probes(*model, probes, kernels, count);
    });
  } catch (const Error& error) {
    give_up(not_running(error));
  }
  if (!is_beside_) await_original(given);
}

void OutputChecks::await_original(CurrentModel& given) {
  if (!original_run_.valid()) return;
  try {
    original_outputs_ = original_run_.get();
    given.outputs.emplace(quick_kernels(), *original_outputs_);
  } catch (const Error& error) {
    give_up(not_running(error));
  }
}

// Verification is of structure only from now on.
void OutputChecks::give_up(std::string reason) {
  result_.verified = false;
  result_.unverified_reason = std::move(reason);
  probes_.clear();
}

bool OutputChecks::can_run(const Model& model, std::string_view since) {
  const std::vector<std::string> missing = Engine::unsupported(model);
  if (missing.empty()) return true;
  give_up(fmt::format("{}no kernel for {}", since, fmt::join(missing, ", ")));
  return false;
}

// Those that cost least: models of many weights run once or twice here, which does not pay for
// bringing all weights into the layout of the fastest kernels.
ProbeKernels OutputChecks::quick_kernels() const { return is_large_ ? ProbeKernels::lean : ProbeKernels::fast; }

// Threads that wait for one another cost a short run more than they save, above all where other
// programs want the processors too. Outputs do not depend on their number.
int OutputChecks::threads(ProbeKernels kernels, std::int64_t macs) const {
  const std::int64_t serial = kernels == ProbeKernels::reference ? 50'000'000 : 1'000'000'000;
  return macs * std::ssize(probes_) < serial ? 1 : options_.threads;
}

const ProbeOutputs& OutputChecks::outputs(CurrentModel& of, ProbeKernels kernels, std::int64_t macs) {
  const auto known = of.outputs.find(kernels);
  if (known != of.outputs.end()) return known->second;
  return of.outputs[kernels] = run_probes(*of.model, probes_, kernels, threads(kernels, macs));
}

std::optional<std::string> OutputChecks::check(const PipelineStep& step, CurrentModel& current, CurrentModel& next,
                                               PassRecord& record) {
  await_original(current);  // until then no step has changed the model given
  next.total_errors = current.total_errors;
  if (probes_.empty() || !can_run(*next.model, fmt::format("after {}: ", step.pass->info().name))) return std::nullopt;
  const Effect effect = record.effect;
  auto broken = compare(step, current, next, record, quick_kernels());
  if (!broken || !record.probed || effect == Effect::approximate || effect == Effect::lossy) return broken;
  // Weights in another layout may be summed in another order, unless all are brought into one.
  if (effect == Effect::exact && is_large_ && !compare(step, current, next, record, ProbeKernels::fast)) return std::nullopt;
  // The fast kernels may sum in another order than the kernel that folded a constant did.
  if (effect == Effect::exact) return compare(step, current, next, record, ProbeKernels::reference);
  // Deep models may turn the last bits of a layer into more: how much, the order of summation
  // shows on the first inputs.
  const std::int64_t macs = current.stats.macs;
  const ProbeOutputs& before = outputs(current, quick_kernels(), macs);
  const ProbeOutputs plain = run_probes(*current.model, {probes_.front()}, ProbeKernels::reference,
                                        threads(ProbeKernels::reference, macs));
  return broken_effect(effect, record.outcome.min_snr_db, before, outputs(next, quick_kernels(), macs), record.errors,
                       measure_errors(*next.model, plain, {before.front()}));
}

// How the outputs of the two models break the pass's effect, by these kernels; or nothing.
std::optional<std::string> OutputChecks::compare(const PipelineStep& step, CurrentModel& current, CurrentModel& next,
                                                 PassRecord& record, ProbeKernels kernels) {
  const std::int64_t macs = current.stats.macs;
  try {
    outputs(current, kernels, macs);
  } catch (const Error& error) {
    give_up(fmt::format("the model before {} does not run on the probe inputs: {}", step.pass->info().name, error.what()));
    return std::nullopt;
  }
  try {
    outputs(next, kernels, macs);
  } catch (const Error& error) {
    return fmt::format("the model it left does not run on the probe inputs: {}", error.what());
  }
  const ProbeOutputs& before = outputs(current, kernels, macs);
  const ProbeOutputs& after = outputs(next, kernels, macs);
  record.errors = measure_errors(*next.model, before, after);
  record.probed = true;
  check_judgeable(record.errors);
  const Effect effect = record.effect;
  if (effect != Effect::exact) next.total_errors = measure_errors(*next.model, *original_outputs_, after);
  return broken_effect(effect, record.outcome.min_snr_db, before, after, record.errors);
}

// Outputs without a finite number agree with anything: they verify nothing.
void OutputChecks::check_judgeable(const std::vector<OutputError>& errors) {
  if (!result_.verified || !is_unjudgeable(errors)) return;
  result_.verified = result_.judgeable = false;
  result_.unverified_reason =
      fmt::format("no output has a finite number on the {} inputs ({})", result_.generated_probes ? "generated" : "given",
                  to_string(errors.front().output, errors.front().before));
}

}  // namespace onnxpress
