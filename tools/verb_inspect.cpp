// onnxpress inspect MODEL: what is in it.
#include "graph/ops/infer.h"
#include "tools/cli.h"
#include "tools/flags.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

// A copy of the model with some inputs' shapes fixed, and what follows from them.
std::unique_ptr<Model> with_input_shapes(const Model& model,
                                         const std::map<std::string, Dims>& shapes) {
  std::unique_ptr<Model> fixed = model.clone();
  for (Value* input : fixed->required_inputs()) {
    const auto shape = shapes.find(input->name());
    if (shape == shapes.end()) continue;
    require(input->type.is_tensor(), "--input-shape: input '{}' is {}", input->name(),
            to_string(input->type));
    if (input->type.shape) {
      const Shape& declared = *input->type.shape;
      bool fits = declared.size() == shape->second.size();
      for (std::size_t axis = 0; fits && axis < declared.size(); ++axis)
        fits = !declared[axis].is_known() || declared[axis].value() == shape->second[axis];
      require(fits, "--input-shape: input '{}' is declared {}, found {}", input->name(),
              to_string(declared), to_string(shape->second));
    }
    input->type.shape = to_shape(shape->second);
  }
  infer_types(*fixed);
  return fixed;
}

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
    app.add_option("--input-shape", shapes_, "fix an input's open dims to count MACs")
        ->type_name("NAME=1x3x224x224");
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
    check_report_paths(reports_);
    for (const std::string& report : reports_) refuse_overwriting(report, {path_});
    session.progress().stage("reading " + path_);
    LoadedModel loaded = load_model(path_, deflated_.size(), keep_overridable_);
    session.progress().stage("counting");
    const auto shapes = parse_input_shapes(shapes_, *loaded.model);
    const std::unique_ptr<Model> fixed =
        shapes.empty() ? nullptr : with_input_shapes(*loaded.model, shapes);
    const ModelStats stats = model_stats(fixed ? *fixed : *loaded.model);

    Json report = report_header(session.run_info(name()));
    report["headline"] = "";
    report["model"] =
        model_section(loaded.file, *loaded.model, stats, static_cast<std::size_t>(tensors));
    report["interface"] = interface_section(*loaded.model);
    report["input_shapes"] = shapes;
    report["notes"] = loaded.notes;
    StagedFiles staged;
    stage_reports(reports_, report, staged);
    session.print(report);
    staged.commit();
    return status_done;
  }

 private:
  std::string path_, tensors_ = "10";
  std::vector<std::string> shapes_, reports_;
  bool keep_overridable_ = false;
  DeflatedFlag deflated_;
};

}  // namespace

std::unique_ptr<Verb> inspect_verb() { return std::make_unique<InspectVerb>(); }

}  // namespace onnxpress
