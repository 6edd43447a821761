// onnxpress compare BEFORE AFTER [--data DATA]: before/after report, with gates.
#include <algorithm>

#include "tools/cli.h"
#include "tools/flags.h"
#include "tools/judgement.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

// Throws Error unless data for one model feeds the other too.
void require_same_inputs(const Model& before, const Model& after) {
  const std::vector<Value*> a = before.required_inputs(), b = after.required_inputs();
  require(a.size() == b.size(), "the models have {} and {} required inputs", a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    require(a[i]->type.kind == b[i]->type.kind && a[i]->type.elem == b[i]->type.elem,
            "input {} is '{}' ({}) before and '{}' ({}) after", i, a[i]->name(),
            to_string(a[i]->type), b[i]->name(), to_string(b[i]->type));
}

class CompareVerb : public Verb {
 public:
  std::string name() const override { return "compare"; }
  std::string summary() const override {
    return "Compares two models: size, parameters, operators and, with data, accuracy and outputs.";
  }
  std::string usage() const override { return "BEFORE AFTER [--data DATA]"; }

  void declare(CLI::App& app) override {
    app.add_option("BEFORE", before_, "a model");
    app.add_option("AFTER", after_, "a model");
    app.add_option("--data", data_, "samples for both; with labels, accuracy is measured")
        ->type_name("DATA")
        ->group("Data");
    app.add_option("--random", random_, "compare outputs on N random batches instead")
        ->type_name("N")
        ->group("Data");
    metric_.declare(app);
    flags_.declare(app);
    gates_.declare(app, "--data");
    app.add_option("--report", reports_, "also write the report: .json, .md or .txt; repeatable")
        ->type_name("FILE")
        ->group("Report");
    deflated_.declare(app);
  }

  int run(Session& session) override {
    require(!before_.empty() && !after_.empty(), "compare: expected two models");
    require(before_ != "-" || after_ != "-", "compare: only one model can be standard input");
    require(data_.empty() || random_.empty(), "compare: expected --data or --random, found both");
    const GateLimits limits = gates_.limits();
    gates_.require_data(!data_.empty());
    const std::optional<Metric> metric = metric_.metric();
    const DataOptions options = flags_.options();
    refuse_overwriting(
        reports_, joined({before_, after_, data_, flags_.labels()}, session.settings().plugins));
    check_report_paths(reports_);
    LoadedModel before = load_model(before_, deflated_.size());
    LoadedModel after = load_model(after_, deflated_.size());
    std::vector<std::string> warnings;
    for (LoadedModel* loaded : {&before, &after}) {
      refuse_overwriting(reports_, loaded->data_files);
      for (const std::string& warning : loaded->warnings)
        warnings.push_back(loaded->file.path + ": " + warning);
      if (flags_.shapes().given()) loaded->model = flags_.shapes().applied(*loaded->model);
    }
    session.warn(warnings);
    const std::unique_ptr<Dataset> data = open(*before.model, options, session);
    std::vector<std::string> notes;

    Judgement judgement;
    if (data || limits.max_latency_ratio)
      for (const LoadedModel* loaded : {&before, &after}) require_engine_runs(*loaded->model);
    if (data) {
      tell_notes(*data, session, notes);
      require_same_inputs(*before.model, *after.model);
      if (data->labelled()) evaluate_both(before, after, *data, metric, session, judgement);
      require(!limits.max_drop || data->labelled(), "--max-drop: '{}' has no labels", data_);
      judgement.errors = measure_errors(*before.model, *after.model, *data, session);
      judgement.errors_on = data->description();
    }
    if (limits.max_latency_ratio) {
      session.progress().stage("measuring latency");
      judgement.latency = measure_latency(
          *before.model, *after.model,
          data ? first_batch(*data).inputs
               : probe_inputs(*before.model, session.settings().seed, flags_.ranges()),
          session.threads());
    }

    Json report = report_header(session.run_info(name()));
    const bool generated = data && data->generated();
    report["headline"] = headline(judgement, data.get());
    report["generated_data"] = generated;
    report["verified"] = !is_unjudgeable(judgement.errors);
    report["warnings"] = warnings;
    report["data"] = data ? Json{{"eval", data_section(*data)}} : Json::object();
    report["preprocessing"] = flags_.said();
    constexpr std::size_t listed = 10;
    report["before"] =
        model_section(before.file, *before.model, model_stats(*before.model), listed);
    report["after"] = model_section(after.file, *after.model, model_stats(*after.model), listed);
    const std::vector<GateResult> gates =
        add_judgement(report, judgement, limits, before.file.total, after.file.total);
    const bool met =
        std::all_of(gates.begin(), gates.end(), [](const GateResult& gate) { return gate.met; });
    report["status"] = met ? status_done : status_missed;
    report["input_shapes"] = flags_.shapes().shapes();
    report["notes"] = notes;
    for (const LoadedModel* loaded : {&before, &after})
      for (const std::string& note : loaded->notes)
        report["notes"].push_back(loaded->file.path + ": " + note);
    StagedFiles staged;
    stage_reports(reports_, report, staged);
    session.finish(report, staged);
    tell_missed(gates, session);
    return met ? status_done : status_missed;
  }

 private:
  std::unique_ptr<Dataset> open(const Model& model, const DataOptions& options,
                                Session& session) const {
    if (!random_.empty())
      return random_data(model, parse_integer("--random", random_, 1, 1'000'000),
                         session.settings().seed, flags_.ranges());
    return data_.empty() ? nullptr : open_data(data_, model, options);
  }

  static std::string headline(const Judgement& judgement, const Dataset* data) {
    if (data == nullptr) return "";
    if (is_unjudgeable(judgement.errors))
      return "COULD NOT BE JUDGED: no output of the model before has a finite number on " +
             data->description();
    return data->generated() ? "compared on " + data->description() + ", not on real data" : "";
  }

  static void evaluate_both(const LoadedModel& before, const LoadedModel& after, Dataset& data,
                            const std::optional<Metric>& metric, Session& session,
                            Judgement& judgement) {
    Judge judge(data, {.threads = session.threads()}, session.progress());
    judgement.before = judge.judge(*before.model, before.file.path);
    judgement.after = judge.judge(*after.model, after.file.path);
    judgement.metric = judged_metric(metric, *judgement.before);
  }

  std::string before_, after_, data_, random_;
  std::vector<std::string> reports_;
  MetricFlag metric_;
  DataFlags flags_;
  GateFlags gates_;
  DeflatedFlag deflated_;
};

}  // namespace

std::unique_ptr<Verb> compare_verb() { return std::make_unique<CompareVerb>(); }

}  // namespace onnxpress
