// onnxpress eval MODEL --data DATA: accuracy and loss on labelled data.
#include "tools/cli.h"
#include "tools/flags.h"
#include "tools/judgement.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

class EvalVerb : public Verb {
 public:
  std::string name() const override { return "eval"; }
  std::string summary() const override {
    return "Measures accuracy, precision, recall, F1 and loss on labelled data.";
  }
  std::string usage() const override { return "MODEL --data DATA"; }

  void declare(CLI::App& app) override {
    app.add_option("MODEL", path_, "a model, or - for standard input");
    app.add_option("--data", data_,
                   "labelled samples: .npz, .npy, IDX, ONNX test sets, image folder")
        ->type_name("DATA")
        ->group("Data");
    app.add_option("--output", output_,
                   "the model's output to judge (the one that fits the labels)")
        ->type_name("NAME")
        ->group("Data");
    metric_.declare(app);
    flags_.declare(app);
    app.add_option("--report", reports_, "also write the report: .json, .md or .txt; repeatable")
        ->type_name("FILE")
        ->group("Report");
  }

  int run(Session& session) override {
    require(!path_.empty(), "eval: expected a model");
    require(!data_.empty(), "eval: expected --data DATA");
    EvaluationOptions options;
    if (const auto metric = metric_.metric()) options.metrics = {*metric};
    options.output = output_;
    options.threads = session.threads();
    const DataOptions data_options = flags_.options();
    refuse_overwriting(reports_,
                       joined({path_, data_, flags_.labels()}, session.settings().plugins));
    check_report_paths(reports_);
    LoadedModel loaded = load_model(path_, DeflatedSize::off);
    refuse_overwriting(reports_, loaded.data_files);
    session.warn(loaded.warnings);
    if (flags_.shapes().given()) loaded.model = flags_.shapes().applied(*loaded.model);
    require_engine_runs(*loaded.model);
    const std::unique_ptr<Dataset> data = open_data(data_, *loaded.model, data_options);
    require(data->labelled(), "'{}' has no labels (an array named 'y' or 'labels', or --labels)",
            data_);
    tell_notes(*data, session, loaded.notes);
    Judge judge(*data, options, session.progress());
    const Evaluation& evaluation = judge.judge(*loaded.model, path_);

    Json report = report_header(session.run_info(name()));
    report["headline"] =
        evaluation.non_finite.all()
            ? fmt::format("COULD NOT BE JUDGED: no element of output '{}' is a finite number",
                          evaluation.output)
            : "";
    report["verified"] = !evaluation.non_finite.all();
    report["warnings"] = loaded.warnings;
    if (evaluation.non_finite.any())
      report["warnings"].push_back(to_string(evaluation.output, evaluation.non_finite));
    report["model"] = model_section(loaded.file, *loaded.model, model_stats(*loaded.model), 0);
    report["data"] = {{"eval", data_section(*data)}};
    report["preprocessing"] = flags_.said();
    report["input_shapes"] = flags_.shapes().shapes();
    report["evaluation"] = evaluation_section(evaluation);
    report["notes"] = loaded.notes;
    for (const std::string& note : evaluation.notes) report["notes"].push_back(note);
    StagedFiles staged;
    stage_reports(reports_, report, staged);
    session.finish(report, staged);
    return status_done;
  }

 private:
  std::string path_, data_, output_;
  std::vector<std::string> reports_;
  MetricFlag metric_;
  DataFlags flags_;
};

}  // namespace

std::unique_ptr<Verb> eval_verb() { return std::make_unique<EvalVerb>(); }

}  // namespace onnxpress
