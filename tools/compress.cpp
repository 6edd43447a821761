#include "tools/compress.h"

#include <unistd.h>

#include <algorithm>
#include <future>

#include "graph/exec/engine.h"
#include "graph/exec/input_shapes.h"
#include "passes/common/inference_form.h"
#include "passes/common/sample_slices.h"
#include "passes/core/explained.h"
#include "tools/cli.h"
#include "tools/judgement.h"

namespace onnxpress {

namespace {

constexpr std::size_t listed_tensors = 10;
constexpr double affordable_evaluation = 30;  // seconds, for attribution by default

// Where the new model goes: staged files, or memory until the gates are decided.
class Target {
 public:
  Target(const CompressJob& job, const Model& model, bool hash)
      : to_pipe_(job.output == "-"), report_to_(job.takes_standard_output() ? STDERR_FILENO : STDOUT_FILENO) {
    file_.path = job.output;
    if (to_pipe_) {
      require(job.external != ExternalData::always, "external data cannot go to standard output");
      bytes_ = to_bytes(model);
      if (hash) file_.sha256 = sha256(std::as_bytes(std::span(bytes_)));
      file_.file = file_.total = static_cast<std::int64_t>(bytes_.size());
    } else {
      const WriteResult written =
          stage_model(model, job.output, *staged_, {.external = job.external, .hash = hash});
      file_.sha256 = written.sha256;
      file_.file = static_cast<std::int64_t>(written.file_bytes);
      file_.total = static_cast<std::int64_t>(written.total_bytes);
      file_.external = file_.total - file_.file;
      notes_ = written.notes;
    }
    if (job.deflated == DeflatedSize::off ||
        (job.deflated == DeflatedSize::automatic && file_.total > deflate_limit))
      return;
    const std::string inline_bytes = to_pipe_ ? std::string() : to_bytes(model);
    const std::span<const std::byte> piece =
        std::as_bytes(std::span(to_pipe_ ? bytes_ : inline_bytes));
    file_.deflated = deflated_size({&piece, 1});
  }

  const ModelFile& file() const { return file_; }
  const std::vector<std::string>& notes() const { return notes_; }
  StagedFiles& staged() { return *staged_; }
  // Forgets the model: only reports will be committed.
  void drop_model() {
    staged_ = std::make_unique<StagedFiles>();
    bytes_.clear();
  }
  // The model first: where its reader is gone, reports do not appear either.
  void commit(const Json& report, Session& session) {
    if (to_pipe_) write_model();
    session.finish(report, *staged_, report_to_);
  }

 private:
  // Half a model is none: unlike a report, it does not end quietly when its reader has gone.
  void write_model() const {
    try {
      write_to(STDOUT_FILENO, bytes_);
    } catch (const BrokenPipe&) {
      fail("standard output was closed by its reader before all {} bytes of the model were written",
           bytes_.size());
    }
  }

  bool to_pipe_;
  int report_to_;  // a descriptor
  ModelFile file_;
  std::string bytes_;
  std::vector<std::string> notes_;
  std::unique_ptr<StagedFiles> staged_ = std::make_unique<StagedFiles>();
};

bool changed_anything(const RunResult& result) {
  return std::ranges::any_of(result.passes, [](const PassRecord& record) { return record.probed; });
}

std::string headline(const RunResult& result, const Dataset* probed) {
  if (!result.judgeable)
    return "COULD NOT BE JUDGED: " + result.unverified_reason +
           "; agreement of such outputs says nothing";
  if (!result.verified)
    return "NOT VERIFIED: " + result.unverified_reason + "; only the structure was checked";
  if (!changed_anything(result)) return "nothing to verify: no pass changed the model";
  if (result.generated_probes)
    return "verified on generated inputs only: outputs compared after every pass, not on real data";
  return fmt::format("verified: outputs compared after every pass on samples of {}",
                     probed != nullptr ? probed->description() : "the data");
}

class CompressRun {
 public:
  CompressRun(const CompressJob& job, Session& session) : job_(job), session_(session) {}

  int run() {
    check_paths();
    session_.progress().stage("reading " + job_.input);
    LoadedModel loaded =
        load_model(job_.input, job_.deflated, job_.keep_overridable,
                   shows_hashes() ? Hashing::beside : Hashing::never);
    refuse_overwriting(joined({job_.output}, job_.reports), loaded.data_files);
    session_.warn(loaded.warnings);
    warnings_ = loaded.warnings;
    before_file_ = loaded.file;
    before_hash_ = std::move(loaded.sha256);
    notes_ = loaded.notes;
    if (!job_.training.data.empty())
      if (const std::string changed = set_inference_form(*loaded.model); !changed.empty()) notes_.push_back("the model " + changed);
    original_ = loaded.model->clone();
    if (!job_.explain_rule.empty()) check_explained(job_.explain_rule, job_.pipeline, *original_);
    if (!job_.shapes.empty())
      shaped_ = in_context([] { return "--input-shape"; },
                           [&] { return with_input_shapes(*original_, job_.shapes); });
    open_datasets();
    require_runnable();
    judge_original();
    result_ = run_pipeline(std::move(loaded.model), job_.pipeline, run_options());
    notes_.insert(notes_.end(), result_.notes.begin(), result_.notes.end());
    judge_result();
    return finish();
  }

 private:
  // Hashes of files: the table on the terminal has none, and computing them takes long.
  bool shows_hashes() const {
    return !job_.reports.empty() || session_.settings().format != Format::table;
  }

  // Before any work: a run of an hour must not end at a folder that cannot be written.
  void check_paths() const {
    const std::vector<std::string> inputs =
        joined({job_.recipe, job_.eval, job_.calib, job_.data_options.labels.string()},
               joined(joined(job_.training.inputs(), job_.teacher.models), session_.settings().plugins));
    const std::vector<std::string> kept = joined(cache_files(), job_.training.outputs());
    refuse_overwriting(joined(joined({job_.output}, kept), job_.reports), inputs);
    refuse_overwriting(joined(kept, job_.reports), {job_.input});
    if (job_.output != "-") check_writable(job_.output);
    for (const std::string& path : kept)
      if (!path.empty() && path != "-") check_writable(path);
    if (job_.teacher.has_cache_folder()) check_folder("--teacher-cache", job_.teacher.cache);
    if (!job_.training.tensorboard.empty()) check_folder("--tensorboard", job_.training.tensorboard);
    check_report_paths(job_.reports);
  }

  std::vector<std::string> cache_files() const {
    return {job_.calib_cache, job_.teacher.has_cache_folder() ? std::string() : job_.teacher.cache};
  }

  void open_datasets() {
    const Model& model = shaped_ ? *shaped_ : *original_;
    if (!job_.eval.empty()) eval_ = open_data(job_.eval, model, job_.data_options);
    if (!job_.calib.empty()) {
      DataOptions options = job_.data_options;
      options.labels.clear();  // --labels belong to --eval
      calib_ = open_data(job_.calib, model, options);
    }
    if (!job_.training.data.empty()) {
      DataOptions options = job_.data_options;
      options.labels = job_.training.labels;
      options.keeps_further = true;
      for (const auto& [name, axis] : options.batch_axis)
        require(axis == 0, "--batch-axis: training takes samples along axis 0 of every input, found axis {} of '{}'", axis, name);
      train_ = open_data(job_.training.data, model, options);
      if (eval_ && !train_->hash().empty() && train_->hash() == eval_->hash()) {
        warnings_.push_back("--eval is what was trained on: its figures say nothing of new samples");
        session_.warn({warnings_.back()});
      }
      teachers_.emplace(job_.teacher, job_.training.data, job_.preprocessing);
      session_.warn(teachers_->warnings());
      notes_.insert(notes_.end(), teachers_->notes().begin(), teachers_->notes().end());
    }
    for (const Dataset* data : {eval_.get(), calib_.get(), train_.get()})
      if (data != nullptr) tell_notes(*data, session_, notes_);
  }

  void require_runnable() const {
    if (eval_ || job_.limits.max_latency_ratio) require_engine_runs(*original_);
  }

  void judge_original() {
    if (!eval_) return;
    require(eval_->labelled() || !job_.limits.max_drop,
            "--max-drop: '{}' has no labels (an array named 'y' or 'labels', or --labels)",
            job_.eval);
    if (!eval_->labelled()) return;
    judge_.emplace(*eval_, EvaluationOptions{.threads = session_.threads()}, session_.progress());
    judgement_.before = judge_->judge(*original_, "the original");
    judgement_.metric = judged_metric(job_.metric, *judgement_.before);
  }

  bool attributes() const {
    if (!judge_ || job_.attribution == Attribution::off) return false;
    return job_.attribution == Attribution::on ||
           judgement_.before->seconds < affordable_evaluation;
  }

  RunOptions run_options() {
    RunOptions options;
    options.seed = session_.settings().seed;
    options.threads = session_.threads();
    options.keep_going = job_.keep_going;
    options.explain = job_.explain;
    options.calibration = calib_.get();
    options.calibration_cache = job_.calib_cache;
    options.training = train_.get();
    if (train_) {
      options.support = training_support(job_.training);
      options.observe = training_observers(job_.training, session_);
      options.support.teacher_cache = job_.teacher.cache;
      options.teachers = teachers_->sources();
    }
    if (Dataset* data = probe_data())
      options.probes = {SampleSlices(shaped_ ? *shaped_ : *original_).first(first_batch(*data))};
    options.input_ranges = job_.ranges;
    options.input_shapes = job_.shapes;
    options.reproducer_folder = job_.reproducers;
    if (attributes())
      options.evaluate = [this](const Model& model) {
        return judge_->judge(model, "after a pass");
      };
    if (job_.output != "-")
      options.offer = [this](std::shared_ptr<const Model> model) {
        early_ = std::async(std::launch::async, [this, model = std::move(model)] {
          return std::make_unique<Target>(job_, *model, shows_hashes());
        });
      };
    options.progress = [this](const std::string& text, std::size_t done, std::size_t total) {
      session_.progress().stage(text, done, total);
    };
    return options;
  }

  Dataset* probe_data() const { return eval_ ? eval_.get() : calib_ ? calib_.get() : train_.get(); }

  void judge_result() {
    if (judge_) judgement_.after = judge_->judge(*result_.model, "the result");
    if (eval_) {
      judgement_.errors = measure_errors(*original_, *result_.model, *eval_, session_);
      judgement_.errors_on = eval_->description();
    } else {
      take_probe_errors();
    }
    if (!job_.limits.max_latency_ratio) return;
    session_.progress().stage("measuring latency");
    judgement_.latency = measure_latency(
        *original_, *result_.model,
        probe_data() ? first_batch(*probe_data()).inputs
                     : probe_inputs(*original_, session_.settings().seed, job_.ranges, job_.shapes),
        session_.threads());
  }

  // Without --eval: what the last pass that stayed showed on the probe inputs.
  void take_probe_errors() {
    for (const PassRecord& record : result_.passes)
      if (record.probed && !record.rolled_back) judgement_.errors = record.total_errors;
    judgement_.errors_on =
        probe_data() != nullptr ? probe_data()->description()
                                : fmt::format("generated inputs (seed {})", session_.settings().seed);
  }

  int finish() {
    session_.progress().stage("writing");
    if (before_hash_.valid()) before_file_.sha256 = before_hash_.get();
    const std::unique_ptr<Target> staged = stage();
    Target& target = *staged;
    notes_.insert(notes_.end(), target.notes().begin(), target.notes().end());
    doubt_outputs();
    if (!result_.judgeable) judgement_.doubt = result_.unverified_reason;
    Json report = report_header(session_.run_info(job_.kind));
    fill(report, target.file());
    std::vector<GateResult> gates =
        add_judgement(report, judgement_, job_.limits, before_file_.total, target.file().total);
    if (job_.require_verified) {
      gates.push_back({.option = "--require-verified", .met = result_.verified, .text = verdict()});
      report["gates"] = gates_section(gates);
    }
    const bool met =
        std::all_of(gates.begin(), gates.end(), [](const GateResult& gate) { return gate.met; });
    const int status =
        met && (job_.keep_going || !result_.rolled_back) ? status_done : status_missed;
    const bool written = status == status_done || job_.write_anyway;
    report["status"] = status;
    report["written"] = written;
    if (!written) target.drop_model();
    stage_reports(job_.reports, report, target.staged());
    target.commit(report, session_);
    tell_missed(gates, session_);
    tell_rolled_back();
    return status;
  }

  // What was staged while the last step was judged, where that is the result.
  std::unique_ptr<Target> stage() {
    if (result_.is_offered) return early_.get();
    early_ = {};
    return std::make_unique<Target>(job_, *result_.model, shows_hashes());
  }

  // Outputs without a finite number, on the data that the result was judged on.
  void doubt_outputs() {
    if (!result_.verified || !is_unjudgeable(judgement_.errors)) return;
    result_.verified = result_.judgeable = false;
    result_.unverified_reason =
        fmt::format("no output has a finite number on {}", judgement_.errors_on);
  }

  std::string verdict() const {
    if (!result_.verified) return result_.unverified_reason;
    return changed_anything(result_)
               ? "outputs were compared after every pass that changed the model"
               : "no pass changed the model: there was nothing to compare";
  }

  // What every step did to the size, so that the rows sum up to the whole change.
  Json attribution_section(const ModelFile& after_file) const {
    const auto entry = [](const std::string& what, const Json& pass, std::int64_t before,
                          std::int64_t after) {
      return Json{
          {"what", what}, {"pass", pass}, {"bytes", {{"before", before}, {"after", after}}}};
    };
    std::int64_t bytes = result_.before.serialized_bytes;
    Json rows = Json::array();
    rows.push_back(entry("re-encoding", Json(), before_file_.total, bytes));
    for (const PassRecord& record : result_.passes) {
      rows.push_back(entry(record.text, record.pass, record.bytes_before, record.bytes_after));
      bytes = record.bytes_after;
    }
    rows.push_back(entry("external data", Json(), bytes, after_file.total));
    return rows;
  }

  void fill(Json& report, const ModelFile& after_file) {
    report["headline"] = headline(result_, probe_data());
    report["verified"] = result_.verified;
    report["unverified_reason"] = result_.verified ? Json() : Json(result_.unverified_reason);
    report["generated_data"] = result_.generated_probes;
    report["warnings"] = warnings_;
    report["status"] = status_done;
    report["written"] = false;
    report["pipeline"] = job_.pipeline.to_text();
    report["preprocessing"] = job_.preprocessing;
    report["data"] = Json::object();
    if (eval_) report["data"]["eval"] = data_section(*eval_);
    if (calib_) report["data"]["calib"] = data_section(*calib_);
    if (train_) report["data"]["train"] = data_section(*train_);
    if (teachers_ && !teachers_->sources().empty()) report["teachers"] = teachers_->section();
    if (!job_.teacher.preprocessing.empty()) report["teacher_preprocessing"] = job_.teacher.preprocessing;
    report["before"] =
        model_section(before_file_, *original_, result_.before, listed_tensors);
    report["after"] =
        model_section(after_file, *result_.model, result_.after, listed_tensors);
    report["passes"] = Json::array();
    for (const PassRecord& record : result_.passes)
      report["passes"].push_back(pass_section(record));
    report["attribution"] = attribution_section(after_file);
    report["input_shapes"] = job_.shapes;
    if (job_.explain)
      report["near_misses"] = near_misses_section(result_.passes, job_.explain_rule);
    report["notes"] = notes_;
    if (judgement_.after)
      for (const std::string& note : judgement_.after->notes) report["notes"].push_back(note);
  }

  void tell_rolled_back() {
    for (const PassRecord& record : result_.passes)
      if (record.rolled_back)
        write_to(STDERR_FILENO, message_line(fmt::format("pass {} was rolled back: {}", record.pass,
                                                         record.failure)));
  }

  const CompressJob& job_;
  Session& session_;
  ModelFile before_file_;
  std::future<std::string> before_hash_;
  std::vector<std::string> notes_, warnings_;
  std::unique_ptr<Model> original_;
  std::unique_ptr<Model> shaped_;  // the original with --input-shape; null without
  std::unique_ptr<Dataset> eval_, calib_, train_;
  std::optional<LoadedTeachers> teachers_;
  std::optional<Judge> judge_;
  Judgement judgement_;
  RunResult result_;
  std::future<std::unique_ptr<Target>> early_;  // of the model offered
};

}  // namespace

int run_compress(const CompressJob& job, Session& session) {
  return CompressRun(job, session).run();
}

}  // namespace onnxpress
