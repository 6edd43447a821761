// onnxpress inspect MODEL: what is in it.
#include "tools/cli.h"
#include "tools/flags.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

class InspectVerb : public Verb {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override {
    return "Shows what is in a model: size, parameters, MACs, sparsity, by operator, type and "
           "tensor.";
  }
  std::string usage() const override { return "MODEL"; }

  void declare(CLI::App& app) override {
    app.add_option("MODEL", path_, "a model, or - for standard input");
    shapes_.declare(app, "Data");
    app.add_option("--tensors", tensors_, "how many of the largest tensors to list (10)")
        ->type_name("N");
    app.add_flag("--keep-overridable", keep_overridable_,
                 "leave initializers that are also inputs overridable");
    app.add_option("--report", reports_, "also write the report: .json, .md or .txt; repeatable")
        ->type_name("FILE")
        ->group("Report");
    deflated_.declare(app);
  }

  int run(Session& session) override {
    require(!path_.empty(), "inspect: expected a model");
    const std::int64_t tensors = parse_integer("--tensors", tensors_, 0, 1'000'000);
    refuse_overwriting(reports_, joined({path_}, session.settings().plugins));
    check_report_paths(reports_);
    session.progress().stage("reading " + path_);
    LoadedModel loaded = load_model(path_, deflated_.size(), keep_overridable_);
    refuse_overwriting(reports_, loaded.data_files);
    session.warn(loaded.warnings);
    session.progress().stage("counting");
    const std::unique_ptr<Model> fixed = shapes_.given() ? shapes_.applied(*loaded.model) : nullptr;
    const ModelStats stats = model_stats(fixed ? *fixed : *loaded.model);

    Json report = report_header(session.run_info(name()));
    report["headline"] = "";
    report["warnings"] = loaded.warnings;
    report["model"] =
        model_section(loaded.file, *loaded.model, stats, static_cast<std::size_t>(tensors));
    report["interface"] = interface_section(*loaded.model);
    report["input_shapes"] = shapes_.shapes();
    report["notes"] = loaded.notes;
    StagedFiles staged;
    stage_reports(reports_, report, staged);
    session.finish(report, staged);
    return status_done;
  }

 private:
  std::string path_, tensors_ = "10";
  std::vector<std::string> reports_;
  InputShapeFlag shapes_;
  bool keep_overridable_ = false;
  DeflatedFlag deflated_;
};

}  // namespace

std::unique_ptr<Verb> inspect_verb() { return std::make_unique<InspectVerb>(); }

}  // namespace onnxpress
