// Training a student after teachers: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a
// Neural Network", and what came after it.
#include <algorithm>

#include "passes/common/training_stage.h"
#include "passes/common/untie_parameters.h"
#include "passes/core/fingerprint.h"
#include "passes/core/registry.h"
#include "passes/train/distillation.h"

namespace onnxpress {
namespace {

using Kind = OptionSpec::Kind;

class Distill final : public Pass {
 public:
  Distill()
      : options_(training_options({
            {.name = "soft",
             .kind = Kind::choice,
             .default_value = "auto",
             .help = "the loss against the teacher's outputs; auto: by the final activation, the labels and the "
                     "output's dims",
             .choices = "auto|distillation|decoupled_distillation|logits_mse|binary_cross_entropy|mse|l1|huber|none"},
            {.name = "alpha",
             .kind = Kind::number,
             .default_value = "0.9",
             .help = "weight of the teacher's outputs; labels have 1 - alpha (option loss)",
             .min = 0,
             .max = 1},
            {.name = "temperature",
             .kind = Kind::number,
             .default_value = "4",
             .help = "of distillation and decoupled_distillation: logits are divided by it",
             .min = 0,
             .max = 1e6},
            {.name = "target_weight",
             .kind = Kind::number,
             .default_value = "1",
             .help = "of decoupled_distillation: weight of the label's class",
             .min = 0,
             .max = 1e6},
            {.name = "other_weight",
             .kind = Kind::number,
             .default_value = "8",
             .help = "of decoupled_distillation: weight of the other classes",
             .min = 0,
             .max = 1e6},
            {.name = "outputs",
             .help = "which outputs are compared: 'STUDENT=TEACHER;...'; default: by name, else by position"},
            {.name = "hints",
             .help = "values that follow the first teacher's, through a learned map: 'STUDENT=TEACHER;...'"},
            {.name = "hint_weight",
             .kind = Kind::number,
             .default_value = "1",
             .help = "of each hint",
             .min = 0,
             .max = 1e9},
            {.name = "attention",
             .help = "maps [N,C,H,W] whose attention follows the first teacher's: 'STUDENT=TEACHER;...'"},
            {.name = "attention_weight",
             .kind = Kind::number,
             .default_value = "1000",
             .help = "of each pair of maps",
             .min = 0,
             .max = 1e9},
            {.name = "relations",
             .help = "values whose relations between samples follow the first teacher's: 'STUDENT=TEACHER;...'"},
            {.name = "distance_weight",
             .kind = Kind::number,
             .default_value = "25",
             .help = "of relations by distance",
             .min = 0,
             .max = 1e9},
            {.name = "angle_weight",
             .kind = Kind::number,
             .default_value = "50",
             .help = "of relations by angle",
             .min = 0,
             .max = 1e9},
        })) {
    info_.options = options_;
  }

  const PassInfo& info() const override { return info_; }

  void check(const Options& options) const override {
    TrainingSettings::from(options);
    DistillationSettings::from(options);
  }

  void check_model(const Model& model, const Options& options) const override {
    TrainingSettings::from(options).check_model(model);
  }

  Outcome run(Model& model, PassContext& context) const override {
    const Hash128 own = fingerprint(model);
    for (const TeacherSource& teacher : context.teachers)
      if (fingerprint(*teacher.model) == own)
        throw Unsuitable(
            fmt::format("teacher '{}' is the model that would be trained: give another (--teacher), or passes "
                        "before that make a student of it",
                        teacher.name));
    const DistillationSettings settings = DistillationSettings::from(context.options);
    const std::unique_ptr<Model> student = model.clone();
    const std::size_t untied = untie_parameters(*student);
    const std::unique_ptr<Distillation> distillation = prepared(*student, settings, context);
    TrainingReport report = train_stage(distillation->model(), distillation->task(), context.options, context);
    Outcome outcome;
    outcome.changed = take_trained(model, distillation->model());
    outcome.notes = distillation->notes();
    if (untied > 0 && outcome.changed) outcome.notes.push_back(untied_note(untied));
    outcome.notes.insert(outcome.notes.end(), report.notes.begin(), report.notes.end());
    outcome.counts["epochs"] = report.record["epochs"].size();
    outcome.training = std::move(report.record);
    return outcome;
  }

 private:
  // What fails here is not of the training, but of what it was given.
  static std::unique_ptr<Distillation> prepared(const Model& model, const DistillationSettings& settings,
                                                PassContext& context) {
    try {
      return std::make_unique<Distillation>(model, settings, TrainingSettings::from(context.options), context);
    } catch (const Unsuitable&) {
      throw;
    } catch (const Error& error) {
      throw Unsuitable(error.what());
    }
  }

  PassInfo info_{.name = "distill",
                 .summary = "trains the model after a teacher's outputs, and values inside it",
                 .effect = Effect::lossy,
                 .needs = Needs::teacher};
  std::vector<OptionSpec> options_;
};

}  // namespace

PASS(distill) { registry.add(std::make_unique<Distill>()); }

}  // namespace onnxpress
