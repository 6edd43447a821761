#include "passes/quantize/aware_training.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "passes/common/loss_choice.h"
#include "passes/common/training_stage.h"
#include "passes/core/idle_options.h"
#include "passes/quantize/aware_blocks.h"
#include "passes/quantize/aware_teacher.h"
#include "passes/quantize/fake_graph.h"

namespace onnxpress {
namespace {

// Optimizers whose steps do not follow the size of gradients.
bool normalizes_steps(OptimizerOptions::Kind kind) {
  using Kind = OptimizerOptions::Kind;
  return kind == Kind::adam || kind == Kind::adamw || kind == Kind::rmsprop;
}

double mean_magnitude(const Tensor& tensor) {
  double sum = 0;
  const std::vector<float> values = tensor.to_floats();
  for (const float value : values) sum += std::fabs(static_cast<double>(value));
  return values.empty() ? 1 : sum / static_cast<double>(values.size());
}

class AwareTraining {
 public:
  AwareTraining(PassContext& context, AwareReport& report)
      : context_(context),
        options_(context.options),
        report_(report),
        settings_(TrainingSettings::from(context.options)) {}

  void tune(Model& model, TunedGrids& grids) {
    FakeQuantized fake = fake_quantize(model, grids);
    const auto is_there = [](const std::optional<LearnedGrid>& grid) { return grid.has_value(); };
    if (std::ranges::none_of(fake.weights, is_there) && std::ranges::none_of(fake.activations, is_there)) {
      report_.notes.emplace_back("nothing was trained: there is nothing to quantize");
      return;
    }
    report_.notes.insert(report_.notes.end(), fake.notes.begin(), fake.notes.end());
    collect_parameters(model, fake);
    std::string objective = options_.text("objective");
    if (objective == "auto") objective = context_.training->labelled() ? "labels" : "teacher";
    if (objective == "blocks") {
      const BlockTraining blocks{.samples = options_.integer("block_samples"),
                                 .parameters = parameters_,
                                 .masks = masks_,
                                 .adjust = [this](auto&&... given) { adjust(given...); }};
      TrainingReport trained = train_blocks(model, fake, blocks, options_, context_);
      take(std::move(trained));
    } else {
      train_whole(model, fake, objective);
    }
    report_.record["objective"] = objective;
    report_.record["learned_scales"] = learned_.size();
    take_trained(fake, model, grids, context_.pool);
  }

 private:
  void collect_parameters(const Model& model, const FakeQuantized& fake) {
    for (const std::string& name : trainable_parameters(model)) {
      const bool is_fixed = std::ranges::find(fake.fixed, name) != fake.fixed.end();
      if (!is_fixed && !(settings_.freezes && selects(settings_.frozen, *model.graph.find(name))))
        parameters_.push_back(name);
    }
    const bool learns = options_.flag("learn_scales") && !options_.flag("power_of_two");
    for (const auto* list : {&fake.weights, &fake.activations})
      for (const std::optional<LearnedGrid>& grid : *list) {
        if (!grid) continue;
        if (learns) add_learned(grid->scale, mean_magnitude(*fake.model->graph.find(grid->scale)->constant()));
        // A step is a share of the range, as it is of a scale.
        if (options_.flag("learn_zero_points") && !grid->zero_point.empty())
          learned_[parameters_.emplace_back(grid->zero_point)] = options_.number("scale_rate") * grid->reach;
      }
    masks_ = zero_masks(model, parameters_);
    if (parameters_.empty()) throw Unsuitable("all parameters are frozen: there is nothing to train");
  }

  // `unit`: what a scale is measured in. Steps of the learning rate are shares of it where the optimizer makes
  // them all alike; where it does not, the gradient's own factor sees to that (fake_quantize.h).
  void add_learned(const std::string& name, double unit) {
    parameters_.push_back(name);
    const double factor = options_.number("scale_rate");
    learned_[name] = normalizes_steps(settings_.optimizer.kind) ? factor * unit : factor;
  }

  void adjust(const std::string& name, const Tensor&, Regularization& how) const {
    if (const auto found = learned_.find(name); found != learned_.end()) how = {.rate = found->second};
  }

  void train_whole(const Model& model, FakeQuantized& fake, const std::string& objective) {
    TrainingTask task{.parameters = parameters_,
                      .adjust =
                          [this](const std::string& name, const Tensor& value, Regularization& how) {
                            adjust(name, value, how);
                          },
                      .masks = masks_};
    std::unique_ptr<SelfTeacher> teacher;
    const double share = objective == "both" ? options_.number("teacher_share") : 1;
    if (objective != "labels") {
      const FirstBatch first = look_at_first_batch(model, *context_.training, context_.pool.size());
      if (objective == "both") choose_labels(model, first, 1 - share, task);
      const bool are_classes = first.batch.labels.defined() && is_integer(first.batch.labels.dtype());
      teacher = std::make_unique<SelfTeacher>(model, first.batch, are_classes, options_.number("temperature"), share,
                                              context_.pool.size());
      task.losses.insert(task.losses.end(), teacher->terms().begin(), teacher->terms().end());
      for (const TargetSource& source : teacher->targets()) task.targets.push_back(source);
      task.loss_text += (task.loss_text.empty() ? "" : "+") + teacher->text();
      task.compute_targets = [&teacher](const Batch& batch, const BatchPlace&) { return teacher->compute(batch); };
    }
    take(train_stage(*fake.model, task, options_, context_));
  }

  void choose_labels(const Model& model, const FirstBatch& first, double weight, TrainingTask& task) {
    ChosenLosses chosen = choose_losses(model, settings_.losses, first, settings_.label_smoothing);
    for (LossTerm& term : chosen.terms) term.weight *= weight;
    task.losses = std::move(chosen.terms);
    task.targets = std::move(chosen.targets);
    task.samples = std::move(chosen.samples);
    task.loss_text = chosen.text;
    report_.notes.insert(report_.notes.end(), chosen.notes.begin(), chosen.notes.end());
  }

  void take(TrainingReport trained) {
    report_.record = std::move(trained.record);
    report_.notes.insert(report_.notes.end(), trained.notes.begin(), trained.notes.end());
  }

  PassContext& context_;
  const Options& options_;
  AwareReport& report_;
  TrainingSettings settings_;
  std::vector<std::string> parameters_;
  std::map<std::string, Tensor> masks_;
  std::map<std::string, double> learned_;  // scales and zero points: their factor of the learning rate
};

}  // namespace

void check_aware(const Options& options, const QuantizeRequest& request) {
  const TrainingSettings settings = TrainingSettings::from(options);
  const std::string& objective = options.text("objective");
  const bool symmetric_activations = request.symmetric_activations.value_or(request.target.symmetric_activations());
  const bool has_zero_points = !request.symmetric || (request.scheme == Scheme::static_ranges && !symmetric_activations);
  const bool reads_labels = objective != "teacher" && objective != "blocks";
  const OptionPlace places[] = {
      {"teacher_share", objective == "both", "objective=both"},
      {"temperature", objective != "labels" && objective != "blocks", "objective=teacher or both"},
      {"block_samples", objective == "blocks", "objective=blocks"},
      {"loss", reads_labels, "objective=labels or both"},
      {"label_smoothing", reads_labels, "objective=labels or both"},
      {"learn_scales", !options.flag("power_of_two"), "scales that are no powers of two"},
      {"scale_rate",
       (options.flag("learn_scales") && !options.flag("power_of_two")) || options.flag("learn_zero_points"),
       "learn_scales (of scales that are no powers of two) or learn_zero_points"},
      {"learn_zero_points", has_zero_points, "grids with zero points (symmetric=false, or act_symmetric=false)"},
  };
  refuse_idle(options, places);
  require(!settings.max_norm.is_given() && settings.max_norm.rules().empty(),
          "max_norm bounds weights that operators read as they are, not behind fake quantization");
  require(request.bias_correction == BiasCorrection::none,
          "bias_correction belongs to quantize: here biases are trained");
  require(request.form != Form::codebook,
          "form=codebook chooses its levels itself: there is nothing to train them with");
  require(request.format == BlockFormat::none && (!request.weight_type || is_integer(*request.weight_type)) &&
              (!request.activation_type || is_integer(*request.activation_type)),
          "levels of float types are not trained with: expected integer types");
}

Tuner aware_tuner(PassContext& context, AwareReport& report) {
  const auto training = std::make_shared<AwareTraining>(context, report);
  return [training](Model& model, TunedGrids& grids) { training->tune(model, grids); };
}

}  // namespace onnxpress
