// Training on labelled data: every initializer follows the gradient of a loss.
#include "passes/common/training_stage.h"
#include "passes/common/untie_parameters.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

class Finetune final : public Pass {
 public:
  Finetune() : options_(training_options()) { info_.options = options_; }

  const PassInfo& info() const override { return info_; }
  void check(const Options& options) const override { TrainingSettings::from(options); }
  void check_model(const Model& model, const Options& options) const override {
    TrainingSettings::from(options).check_model(model);
  }

  Outcome run(Model& model, PassContext& context) const override {
    const std::unique_ptr<Model> trained = model.clone();
    const std::size_t untied = untie_parameters(*trained);
    TrainingReport report = train_stage(*trained, {}, context.options, context);
    Outcome outcome;
    outcome.changed = take_trained(model, *trained);
    outcome.notes = std::move(report.notes);
    if (untied > 0 && outcome.changed) outcome.notes.push_back(untied_note(untied));
    outcome.counts["epochs"] = report.record["epochs"].size();
    outcome.training = std::move(report.record);
    return outcome;
  }

 private:
  PassInfo info_{.name = "finetune",
                 .summary = "trains the model's initializers on labelled data by gradient descent",
                 .effect = Effect::lossy,
                 .needs = Needs::training};
  std::vector<OptionSpec> options_;
};

}  // namespace

PASS(finetune) { registry.add(std::make_unique<Finetune>()); }

}  // namespace onnxpress
