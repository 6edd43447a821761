#include "passes/core/runner.h"

#include <algorithm>
#include <chrono>
#include <future>

#include "graph/exec/unsupported.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/onnx/writer.h"
#include "graph/rewrite/pattern.h"
#include "passes/core/fingerprint.h"
#include "passes/core/group.h"
#include "passes/core/output_checks.h"
#include "passes/core/prepared_pass.h"
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
    const bool is_large = static_cast<std::int64_t>(serialized_size(*current_.model)) > large_model_bytes;
    is_beside_ = is_large && pool_.size() > 1;
    checks_.set_large(is_large, is_beside_);
    if (options_.teachers.empty() && pipeline_.needs(Needs::teacher)) original_ = current_.model->clone();
    checks_.prepare(current_, pipeline_);
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
    checks_.await_original(current_);
    result_.model = std::move(current_.model);
    result_.after = std::move(current_.stats);
    return std::move(result_);
  }

 private:
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
    const CurrentModel checkpoint = current_.clone();
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

    const CurrentModel checkpoint = current_.clone();
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
    CurrentModel next{.model = current_.model->clone()};
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
    } catch (const UnsupportedModel& error) {
      failure = error.what();
      // Of the model given, as every pass finds it.
      if (!options_.keep_going) {
        Unsuitable unsuitable(*failure);
        unsuitable.within(fmt::format("pass {}", step.pass->info().name));
        throw unsuitable;
      }
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
  std::optional<std::string> judge(const PipelineStep& step, CurrentModel& next, PassRecord& record,
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
    stats = checks_.beside([this, &next] { return measure(*next.model, options_.input_shapes, &current_.stats); });
    offer(step, *next.model);
    return checks_.check(step, current_, next, record);
  }

  // Groups in a row may go on behind the last step.
  void offer(const PipelineStep& step, const Model& model) {
    if (!options_.offer || !is_beside_ || &step != &pipeline_.steps.back() || is_group(number_ - 1)) return;
    options_.offer(model.clone());
    result_.is_offered = true;
  }

  void keep(PassRecord& record, CurrentModel next) {
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
                                            .probes = &checks_.probes(),
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
  CurrentModel current_;
  std::unique_ptr<Model> original_;  // when some step needs a teacher and none was given
  std::vector<std::string> contradictions_;  // of declared shapes in the model given
  bool is_beside_ = false;  // large models: runs and counts go on beside other work
  std::size_t number_ = 0;
  RunResult result_;
  OutputChecks checks_{options_, result_};
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
