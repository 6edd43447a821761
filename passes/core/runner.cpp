#include "passes/core/runner.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <type_traits>

#include "graph/exec/engine.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/onnx/writer.h"
#include "graph/rewrite/pattern.h"
#include "passes/core/fingerprint.h"
#include "passes/core/group.h"
#include "passes/core/prepared_pass.h"
#include "passes/core/probe.h"
#include "passes/core/registry.h"
#include "passes/core/reproducer.h"
#include "passes/core/step_checks.h"
#include "passes/core/step_record.h"

namespace onnxpress {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The model as far as steps have brought it, and what is known of it.
struct Current {
  std::unique_ptr<Model> model;
  Hash128 form;  // form_hash
  ModelStats stats;
  std::map<ProbeKernels, ProbeOutputs> outputs;  // made when first asked for
  std::vector<OutputError> total_errors;
  std::optional<Evaluation> evaluation;

  Current clone() const {
    return {model->clone(), form, stats, outputs, total_errors, evaluation};
  }
};

// Each group runs to a fixed point of its own: more turns than this are a ping-pong.
constexpr std::size_t most_rounds_of_groups = 16;
constexpr std::int64_t large_model_bytes = std::int64_t{64} << 20;

class Runner {
 public:
  Runner(std::unique_ptr<Model> model, const Pipeline& pipeline, const RunOptions& options)
      : pipeline_(pipeline),
        options_(options),
        pool_(options.threads > 0 ? options.threads : available_cpus()) {
    in_context([] { return "the model given"; },
               [&] {
                 contradictions_ = contradicted_declarations(*model);
                 verify(*model, contradictions_);
               });
    current_.model = std::move(model);
    current_.form = form_hash(*current_.model);
    is_large_ = static_cast<std::int64_t>(serialized_size(*current_.model)) > large_model_bytes;
    if (options_.teachers.empty() && pipeline_.needs(Needs::teacher)) original_ = current_.model->clone();
    prepare_probes();
    current_.stats = measure(*current_.model, options_.input_shapes, nullptr);
    result_.before = current_.stats;
  }

  RunResult run() {
    for (std::size_t i = 0; i < pipeline_.steps.size(); ++i) {
      const PipelineStep& step = pipeline_.steps[i];
      if (options_.progress)
        options_.progress(fmt::format("running {}", step.pass->info().name), i,
                          pipeline_.steps.size());
      number_ = i + 1;
      if (!run_prepared(step)) {
        result_.rolled_back = true;
        if (!options_.keep_going) break;
      }
      if (ends_groups(i) && !repeat_groups(i) && !options_.keep_going) break;
    }
    await_original_outputs();
    result_.model = std::move(current_.model);
    result_.after = std::move(current_.stats);
    return std::move(result_);
  }

 private:
  // --- probes -----------------------------------------------------------------------------------

  void prepare_probes() {
    if (pipeline_.steps.empty()) return;
    if (!can_run(*current_.model, "")) return;
    try {
      const std::int64_t macs = shaped_macs(*current_.model, options_.input_shapes);
      result_.generated_probes = options_.probes.empty();
      probes_ = options_.probes;
      if (result_.generated_probes)
        probes_ = generate_probes(*current_.model, macs, options_.seed, options_.input_ranges,
                                  options_.input_shapes);
      const bool all_exact = std::ranges::all_of(pipeline_.steps, [](const PipelineStep& step) {
        return step.pass->info().effect == Effect::exact;
      });
      if (all_exact) return;
      std::shared_ptr<const Model> model = current_.model->clone();
      original_run_ = beside([model, probes = probes_, kernels = quick_kernels(),
                              threads = probe_threads(quick_kernels(), macs)] {
        return run_probes(*model, probes, kernels, threads);
      });
    } catch (const Error& error) {
      give_up_probing(not_running(error));
    }
    if (!is_beside()) await_original_outputs();
  }

  // Large models run while other work goes on: on one thread or few, most of the time waiting for
  // memory.
  bool is_beside() const { return is_large_ && pool_.size() > 1; }
  template <class Work>
  std::future<std::invoke_result_t<Work>> beside(Work work) const {
    return std::async(is_beside() ? std::launch::async : std::launch::deferred, std::move(work));
  }

  // Before anything is compared, and before the end: whether the model given runs is part of the result.
  void await_original_outputs() {
    if (!original_run_.valid()) return;
    try {
      original_outputs_ = original_run_.get();
      current_.outputs.emplace(quick_kernels(), *original_outputs_);  // it is still the model given
    } catch (const Error& error) {
      give_up_probing(not_running(error));
    }
  }

  static std::string not_running(const Error& error) {
    return fmt::format("the model given does not run on the probe inputs: {}", error.what());
  }

  // Verification is of structure only from now on.
  void give_up_probing(std::string reason) {
    result_.verified = false;
    result_.unverified_reason = std::move(reason);
    probes_.clear();
  }

  bool can_run(const Model& model, std::string_view since) {
    const std::vector<std::string> missing = Engine::unsupported(model);
    if (missing.empty()) return true;
    give_up_probing(fmt::format("{}no kernel for {}", since, fmt::join(missing, ", ")));
    return false;
  }

  // Those that cost least: models of many weights run once or twice here, which does not pay for
  // bringing all weights into the layout of the fastest kernels.
  ProbeKernels quick_kernels() const { return is_large_ ? ProbeKernels::lean : ProbeKernels::fast; }

  const ProbeOutputs& outputs(Current& of, ProbeKernels kernels) {
    const auto known = of.outputs.find(kernels);
    if (known != of.outputs.end()) return known->second;
    return of.outputs[kernels] =
               run_probes(*of.model, probes_, kernels, probe_threads(kernels, current_.stats.macs));
  }

  // Threads that wait for one another cost a short run more than they save, above all where other
  // programs want the processors too. Outputs do not depend on their number.
  int probe_threads(ProbeKernels kernels, std::int64_t macs) const {
    const std::int64_t serial = kernels == ProbeKernels::reference ? 50'000'000 : 1'000'000'000;
    return macs * std::ssize(probes_) < serial ? 1 : options_.threads;
  }

  // --- groups in a row --------------------------------------------------------------------------

  bool is_group(std::size_t step) const {
    return step < pipeline_.steps.size() &&
           dynamic_cast<const GroupPass*>(pipeline_.steps[step].pass) != nullptr;
  }

  bool ends_groups(std::size_t step) const {
    return step > 0 && is_group(step - 1) && is_group(step) && !is_group(step + 1);
  }

  // Groups in a row (simplify,fuse) make work for each other: they take turns, from the first one
  // on, until none changes the model. False when one was rolled back.
  bool repeat_groups(std::size_t last) {
    std::size_t first = last;
    while (first > 0 && is_group(first - 1)) --first;
    const std::size_t count = last - first + 1;
    std::size_t quiet = 0;  // steps since the model changed
    for (auto record = result_.passes.rbegin(); record != result_.passes.rend(); ++record) {
      if (record->rolled_back) return true;
      if (!record->reason.empty()) continue;  // put in for the step after it
      if (record->changed || ++quiet == count) break;
    }
    for (std::size_t turn = 0; quiet + 1 < count && turn < count * most_rounds_of_groups; ++turn) {
      number_ = first + turn % count + 1;
      const PipelineStep& step = pipeline_.steps[number_ - 1];
      if (!run_with_opset(step, "a pass after it changed the model")) {
        result_.rolled_back = true;
        return false;
      }
      quiet = result_.passes.back().changed ? 0 : quiet + 1;
      if (quiet > 0) join_last_record();
    }
    return true;
  }

  // A turn that changed nothing is told by the record that its step has already.
  void join_last_record() {
    PassRecord turn = std::move(result_.passes.back());
    result_.passes.pop_back();
    const auto earlier = std::find_if(result_.passes.rbegin(), result_.passes.rend(),
                                      [&](const PassRecord& r) { return r.text == turn.text; });
    earlier->seconds += turn.seconds;
    earlier->verification_seconds += turn.verification_seconds;
    earlier->near_misses = std::move(turn.near_misses);
  }

  // --- steps ------------------------------------------------------------------------------------

  // Runs what the step is better with first; undone when the step does not stay or changes nothing.
  bool run_prepared(const PipelineStep& step) {
    check_selectors(step, *current_.model);
    const auto* prepared = dynamic_cast<const PreparedPass*>(step.pass);
    if (prepared == nullptr) return run_with_opset(step);
    std::vector<std::string> wanted;
    try {
      wanted = prepared->preparations(*current_.model, step.options);
    } catch (const std::exception& error) {
      refuse(step, error.what());
      return false;
    }
    if (wanted.empty()) return run_with_opset(step);
    const Current checkpoint = current_.clone();
    const std::size_t first_record = result_.passes.size();
    std::vector<std::string> changing;
    for (const std::string& name : wanted) {
      const Pass& pass = passes().find(name);
      const PipelineStep inserted{&pass, Options(pass.info().name, pass.info().options, {})};
      run_with_opset(inserted, fmt::format("{} is better with it before", step.pass->info().name));
      if (result_.passes.back().changed)
        changing.push_back(name);
      else if (!result_.passes.back().rolled_back)
        result_.passes.pop_back();
    }
    const std::size_t end = result_.passes.size();
    const bool stayed = run_with_opset(step);
    const bool changed = stayed && result_.passes.back().changed;
    if (changed) {
      for (const std::string& name : changing)
        result_.notes.push_back(fmt::format("{} was run before {}", name, step.pass->info().name));
    } else {
      current_ = checkpoint.clone();
      result_.passes.erase(result_.passes.begin() + static_cast<std::ptrdiff_t>(first_record),
                           result_.passes.begin() + static_cast<std::ptrdiff_t>(end));
      rebase(result_.passes.back());
    }
    return stayed;
  }

  // False when the step did not stay. `again`: why it is run once more; else empty.
  bool run_with_opset(const PipelineStep& step, const std::string& again = "") {
    check_selectors(step, *current_.model);
    const std::size_t first_record = result_.passes.size();
    std::int64_t needed = 0;
    try {
      needed = step.pass->required_opset(*current_.model, step.options);
    } catch (const std::exception& error) {
      refuse(step, error.what());
      return false;
    }
    const std::int64_t found = current_.model->graph.opset();
    if (needed <= found) return attempt(step, again);

    const Current checkpoint = current_.clone();
    const std::string reason =
        fmt::format("{} needs opset {}, the model has {}", step.pass->info().name, needed, found);
    if (!upgrade(step, needed, reason)) return false;
    result_.notes.push_back(reason + fmt::format(": upgraded to {}", needed));
    const bool stayed = attempt(step, again);
    if (!stayed || !result_.passes.back().changed) {
      current_ = checkpoint.clone();
      result_.passes.erase(result_.passes.begin() + static_cast<std::ptrdiff_t>(first_record),
                           result_.passes.end() - 1);
      result_.notes.back() += ", and undone since the step did not change the model";
      rebase(result_.passes.back());
    }
    return stayed;
  }

  // Sizes of a record whose upgrade was undone.
  void rebase(PassRecord& record) {
    set_sizes(record, current_.stats, current_.stats);
    record.total_errors = current_.total_errors;
    record.evaluation = current_.evaluation;
  }

  bool upgrade(const PipelineStep& step, std::int64_t target, const std::string& reason) {
    PipelineStep inserted;
    try {
      inserted.pass = &passes().find("upgrade_opset");
      inserted.options = Options(inserted.pass->info().name, inserted.pass->info().options,
                                 {{"target", std::to_string(target)}});
    } catch (const Error& error) {
      refuse(step, fmt::format("{}: {}", reason, error.what()));
      return false;
    }
    if (attempt(inserted, reason) && current_.model->graph.opset() >= target) return true;
    refuse(step, fmt::format("{}, and upgrading it failed", reason));
    return false;
  }

  PassRecord new_record(const PipelineStep& step) const {
    PassRecord record;
    record.pass = step.pass->info().name;
    record.options = step.options.to_json();
    record.text = Pipeline::to_text(step);
    record.effect = step.pass->info().effect;
    set_sizes(record, current_.stats, current_.stats);
    return record;
  }

  // Records a step that could not even start.
  void refuse(const PipelineStep& step, const std::string& failure) {
    PassRecord record = new_record(step);
    record.rolled_back = true;
    record.failure = failure;
    record.total_errors = current_.total_errors;
    result_.passes.push_back(std::move(record));
  }

  bool attempt(const PipelineStep& step, const std::string& reason) {
    PassRecord record = new_record(step);
    record.reason = reason;
    Current next{.model = current_.model->clone()};
    std::future<ModelStats> stats;  // behind `next`, which it reads
    std::optional<std::string> failure = run_pass(step, *next.model, record);
    const auto start = Clock::now();
    if (!failure) failure = judge(step, next, record, stats);
    record.verification_seconds = seconds_since(start);
    if (failure) {
      result_.is_offered = false;
      roll_back(record, std::move(*failure));
    } else {
      if (record.changed) next.stats = stats.get();
      keep(record, std::move(next));
    }
    result_.passes.push_back(std::move(record));
    return !result_.passes.back().rolled_back;
  }

  // Why the pass failed, or nothing.
  std::optional<std::string> run_pass(const PipelineStep& step, Model& model, PassRecord& record) {
    const auto start = Clock::now();
    std::optional<std::string> failure;
    const bool has_data = step.pass->needs(step.options) != Needs::nothing;
    PassContext context{.options = step.options,
                        .pool = pool_,
                        .seed = options_.seed,
                        .calibration = has_data ? options_.calibration : nullptr,
                        .training = has_data ? options_.training : nullptr,
                        .teachers = teachers(step),
                        .near_misses = options_.explain ? &record.near_misses : nullptr,
                        .calibration_cache = options_.calibration_cache,
                        .calibrated = &calibrated_,
                        .progress = options_.progress,
                        .support = support(step)};
    try {
      if (context.calibration) context.calibration->rewind();
      if (context.training) context.training->rewind();
      record.outcome = step.pass->run(model, context);
      record.effect = record.outcome.effect.value_or(record.effect);
    } catch (const std::bad_alloc&) {
      failure = "out of memory";
    } catch (Unsuitable& unsuitable) {
      unsuitable.within(fmt::format("pass {}", step.pass->info().name));
      throw;
    } catch (const std::exception& error) {
      failure = error.what();
    } catch (...) {
      failure = "an exception that is no std::exception";
    }
    record.seconds = seconds_since(start);
    release_pages(*current_.model);  // that the pass read
    return failure;
  }

  std::vector<TeacherSource> teachers(const PipelineStep& step) const {
    if (step.pass->needs(step.options) != Needs::teacher) return {};
    if (!options_.teachers.empty()) return options_.teachers;
    return {{.name = "the original model", .model = original_.get()}};
  }

  TrainingSupport support(const PipelineStep& step) const {
    TrainingSupport given = options_.support;
    if (!trains(step)) return given;
    if (options_.observe) given.observer = options_.observe(std::string(step.pass->info().name));
    if (given.checkpoint.empty()) return given;
    const auto before = std::span(pipeline_.steps).first(number_ - 1);
    if (const auto earlier = std::ranges::count_if(before, trains); earlier > 0)
      given.checkpoint += fmt::format(".{}", earlier + 1);
    return given;
  }

  // What is wrong with the model the pass left, or nothing; then `stats` are on their way.
  std::optional<std::string> judge(const PipelineStep& step, Current& next, PassRecord& record,
                                   std::future<ModelStats>& stats) {
    try {
      verify(*next.model, contradictions_);
    } catch (const Error& error) {
      return fmt::format("it left a model that does not verify: {}", error.what());
    }
    next.form = form_hash(*next.model);
    record.changed = next.form != current_.form || !same_contents(*current_.model, *next.model);
    if (record.outcome.changed && !record.changed)
      return "it claims a change but left the model as it was";
    if (!record.outcome.changed && record.changed)
      return "it claims no change but changed the model";
    if (!record.changed) return std::nullopt;
    if (auto interface = changed_interface(*current_.model, *next.model))
      return fmt::format("it changed the model's interface: {}", *interface);
    stats = beside([this, &next] { return measure(*next.model, options_.input_shapes, &current_.stats); });
    offer(step, *next.model);
    return probe(step, next, record);
  }

  // Groups in a row may go on behind the last step.
  void offer(const PipelineStep& step, const Model& model) {
    if (!options_.offer || !is_beside() || &step != &pipeline_.steps.back() || is_group(number_ - 1)) return;
    options_.offer(model.clone());
    result_.is_offered = true;
  }

  std::optional<std::string> probe(const PipelineStep& step, Current& next, PassRecord& record) {
    await_original_outputs();
    next.total_errors = current_.total_errors;
    if (probes_.empty() || !can_run(*next.model, fmt::format("after {}: ", step.pass->info().name)))
      return std::nullopt;
    const Effect effect = record.effect;
    auto broken = compare(step, next, record, quick_kernels());
    if (!broken || !record.probed || effect == Effect::approximate || effect == Effect::lossy)
      return broken;
    // Weights in another layout may be summed in another order, unless all are brought into one.
    if (effect == Effect::exact && is_large_ && !compare(step, next, record, ProbeKernels::fast)) return std::nullopt;
    // The fast kernels may sum in another order than the kernel that folded a constant did.
    if (effect == Effect::exact) return compare(step, next, record, ProbeKernels::reference);
    // Deep models may turn the last bits of a layer into more: how much, the order of summation
    // shows on the first inputs.
    const ProbeOutputs& before = outputs(current_, quick_kernels());
    const ProbeOutputs plain =
        run_probes(*current_.model, {probes_.front()}, ProbeKernels::reference,
                   probe_threads(ProbeKernels::reference, current_.stats.macs));
    return broken_effect(effect, record.outcome.min_snr_db, before, outputs(next, quick_kernels()),
                         record.errors,
                         measure_errors(*next.model, plain, {before.front()}));
  }

  // How the outputs of the two models break the pass's effect, by these kernels; or nothing.
  std::optional<std::string> compare(const PipelineStep& step, Current& next, PassRecord& record,
                                     ProbeKernels kernels) {
    try {
      outputs(current_, kernels);
    } catch (const Error& error) {
      give_up_probing(fmt::format("the model before {} does not run on the probe inputs: {}",
                                  step.pass->info().name, error.what()));
      return std::nullopt;
    }
    try {
      outputs(next, kernels);
    } catch (const Error& error) {
      return fmt::format("the model it left does not run on the probe inputs: {}", error.what());
    }
    const ProbeOutputs& before = outputs(current_, kernels);
    const ProbeOutputs& after = outputs(next, kernels);
    record.errors = measure_errors(*next.model, before, after);
    record.probed = true;
    check_judgeable(record.errors);
    const Effect effect = record.effect;
    if (effect != Effect::exact)
      next.total_errors = measure_errors(*next.model, *original_outputs_, after);
    return broken_effect(effect, record.outcome.min_snr_db, before, after, record.errors);
  }

  // Outputs without a finite number agree with anything: they verify nothing.
  void check_judgeable(const std::vector<OutputError>& errors) {
    if (!result_.verified || !is_unjudgeable(errors)) return;
    result_.verified = result_.judgeable = false;
    result_.unverified_reason =
        fmt::format("no output has a finite number on the {} inputs ({})",
                    result_.generated_probes ? "generated" : "given",
                    to_string(errors.front().output, errors.front().before));
  }

  void keep(PassRecord& record, Current next) {
    if (record.changed) {
      set_sizes(record, current_.stats, next.stats);
      current_ = std::move(next);
    }
    if (options_.evaluate && !current_.evaluation)
      current_.evaluation = options_.evaluate(*current_.model);
    record.evaluation = current_.evaluation;
    record.total_errors = current_.total_errors;
  }

  void roll_back(PassRecord& record, std::string failure) {
    record.rolled_back = true;
    record.changed = false;
    record.failure = std::move(failure);
    record.total_errors = current_.total_errors;
    if (options_.reproducer_folder.empty()) return;
    try {
      record.reproducer = write_reproducer({.name = fmt::format("{}-{}", number_, record.pass),
                                            .model = current_.model.get(),
                                            .step = record.text,
                                            .seed = options_.seed,
                                            .data = describe_data(options_),
                                            .probes = &probes_,
                                            .failure = record.failure},
                                           options_.reproducer_folder);
    } catch (const Error& error) {
      result_.notes.push_back(fmt::format("no reproducer for {}: {}", record.pass, error.what()));
    }
  }

  const Pipeline& pipeline_;
  const RunOptions& options_;
  ThreadPool pool_;
  std::vector<std::string> calibrated_;  // hashes of the models
  Current current_;
  std::unique_ptr<Model> original_;  // when some step needs a teacher and none was given
  std::vector<std::string> contradictions_;  // of declared shapes in the model given
  std::vector<std::vector<Tensor>> probes_;  // empty: outputs are not compared
  std::optional<ProbeOutputs>
      original_outputs_;  // by quick_kernels(), when some step is not exact
  std::future<ProbeOutputs> original_run_;  // that makes them
  bool is_large_ = false;  // the model given
  std::size_t number_ = 0;
  RunResult result_;
};

}  // namespace

RunResult run_pipeline(std::unique_ptr<Model> model, const Pipeline& pipeline,
                       const RunOptions& options) {
  require(model != nullptr, "there is no model to run the pipeline on");
  for (std::size_t i = 0; i < pipeline.steps.size(); ++i)
    in_context([&] { return fmt::format("step {}", i + 1); },
               [&] {
                 const PipelineStep& step = pipeline.steps[i];
                 check_needs(step, options);
                 in_context([&] { return fmt::format("pass {}", step.pass->info().name); },
                            [&] { step.pass->check(step.options); });
               });
  return Runner(std::move(model), pipeline, options).run();
}

}  // namespace onnxpress
