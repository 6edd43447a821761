#include "passes/common/training_stage.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "graph/exec/gradients.h"
#include "passes/common/checkpoint.h"
#include "passes/common/dropout_places.h"
#include "passes/common/loss_choice.h"
#include "passes/common/weights.h"
#include "passes/core/fingerprint.h"

namespace onnxpress {
namespace {

// JSON has no NaN.
Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json json_of(const EpochRecord& epoch) {
  const bool is_start = epoch.epoch == 0;
  return {{"epoch", epoch.epoch},
          {"step", epoch.step},
          {"loss", is_start ? Json() : Json(epoch.loss)},
          {"held_out_loss", json_of(epoch.held_loss)},
          {"held_out_accuracy", json_of(epoch.held_accuracy)},
          {"learning_rate", is_start ? Json() : Json(epoch.rate)},
          {"samples", epoch.samples},
          {"seconds", epoch.seconds}};
}

// Zeros that pruning left, to be kept: those of weights that are not 0 everywhere.
std::map<std::string, Tensor> masks_of(const Model& model, const std::vector<std::string>& trained) {
  std::map<std::string, Tensor> masks;
  for (const Weight& weight : collect_weights(model, WeightKinds::all, Selector(""), "", nullptr)) {
    if (std::ranges::find(trained, weight.value->name()) == trained.end()) continue;
    const Tensor wide = weight.value->constant()->cast(DType::float32);
    const auto values = wide.data<float>();
    const auto zeros = std::ranges::count(values, 0.0F);
    if (zeros > 0 && zeros < std::ssize(values)) masks[weight.value->name()] = *weight.value->constant();
  }
  return masks;
}

class Stage {
 public:
  Stage(Model& model, const TrainingTask& task, const Options& options, PassContext& context)
      : model_(model),
        task_(task),
        options_(options),
        context_(context),
        data_(*context.training),
        settings_(TrainingSettings::from(options)) {}

  TrainingReport run() {
    report_.record = Json::object();
    const FirstBatch first = look_at_first_batch(model_, data_, context_.pool.size());
    choose(first);
    choose_parameters();
    const std::unique_ptr<Model> before = model_.clone();
    Trainer trainer(model_, parameters_, losses_.terms, trainer_options());
    FitOptions fit_options = this->fit_options(first);
    prepare_checkpoint(first, fit_options);
    const FitResult result = fit(trainer, model_, losses_.terms, data_, fit_options, observer());
    trainer.store(model_);
    for (const std::string& note : trainer.notes()) report_.notes.push_back(note);
    for (const std::string& note : result.notes) report_.notes.push_back(note);
    record(result);
    for (const Value* value : model_.graph.initializers()) {
      const Tensor *now = value->constant(), *was = before->graph.find(value->name())->constant();
      report_.changed = report_.changed || (now != nullptr && !now->equals(*was));
    }
    return std::move(report_);
  }

 private:
  void choose(const FirstBatch& first) {
    if (task_.losses.empty()) {
      losses_ = choose_losses(model_, settings_.losses, first, settings_.label_smoothing);
      for (const std::string& note : losses_.notes) report_.notes.push_back(note);
      return;
    }
    losses_ = {.terms = task_.losses, .targets = task_.targets, .samples = task_.samples, .text = task_.loss_text};
  }

  void choose_parameters() {
    choose_model_parameters();
    for (const std::string& name : task_.further_parameters)
      if (std::ranges::find(parameters_, name) == parameters_.end()) parameters_.push_back(name);
  }

  void choose_model_parameters() {
    parameters_ = task_.parameters;
    if (!parameters_.empty()) return;
    std::size_t frozen = 0;
    for (const std::string& name : trainable_parameters(model_)) {
      if (std::ranges::find(task_.further_parameters, name) != task_.further_parameters.end()) continue;
      const Value& value = *model_.graph.find(name);
      if (selects(settings_.trained, value) && !(settings_.freezes && selects(settings_.frozen, value)))
        parameters_.push_back(name);
      else
        ++frozen;
    }
    if (parameters_.empty())
      throw Unsuitable(frozen > 0 ? "all parameters are frozen: there is nothing to train"
                                  : "the model has no floating-point initializers to train (weights in Constant nodes: run "
                                    "'simplify' before)");
    if (frozen > 0) report_.notes.push_back(fmt::format("{} of {} parameters are frozen", frozen, frozen + parameters_.size()));
  }

  TrainerOptions trainer_options() {
    TrainerOptions options;
    options.optimizer = settings_.optimizer;
    options.schedule = settings_.schedule_of(updates_per_epoch(model_, data_.samples(), settings_.fit));
    options.mode.batch_statistics = settings_.batch_statistics;
    options.mode.keep_dropout = settings_.keeps_dropout;
    options.mode.dropout = dropout_places(model_, settings_.dropout, parameters_);
    options.mode.samples = losses_.samples;
    for (const auto& [value, ratio] : options.mode.dropout)
      report_.notes.push_back(fmt::format("dropout {} of '{}'", ratio, value));
    options.clip_norm = settings_.clip_norm;
    options.clip_value = settings_.clip_value;
    options.seed = context_.seed;
    options.regularize = [this, axes = channel_axes()](const std::string& name, const Tensor& value) {
      return regularization(name, value, axes);
    };
    if (settings_.keeps_zeros) options.masks = masks_of(model_, parameters_);
    if (!options.masks.empty())
      report_.notes.push_back(fmt::format("{} weight{} with zeros: they stay 0", options.masks.size(),
                                          options.masks.size() == 1 ? "" : "s"));
    options.threads = context_.pool.size();
    return options;
  }

  // The axis of outputs, by weight.
  std::map<std::string, std::size_t> channel_axes() const {
    std::map<std::string, std::size_t> axes;
    for (const Weight& weight : collect_weights(model_, WeightKinds::all, Selector(""), "", nullptr))
      if (weight.channel_axis) axes[weight.value->name()] = static_cast<std::size_t>(*weight.channel_axis);
    return axes;
  }

  Regularization regularization(const std::string& name, const Tensor& value,
                                const std::map<std::string, std::size_t>& axes) const {
    const Value& tensor = *model_.graph.find(name);
    Regularization result{.l1 = settings_.l1.of(tensor),
                          .l2 = settings_.l2.of(tensor),
                          .decay = settings_.weight_decay.of(tensor),
                          .rate = settings_.rate_factors.of(tensor)};
    if (const auto axis = axes.find(name); axis != axes.end()) {
      result.max_norm = settings_.max_norm.of(tensor);
      result.norm_axis = axis->second;
    }
    if (task_.adjust) task_.adjust(name, value, result);
    return result;
  }

  // Augmentation, and behind it what the task does to batches.
  std::function<void(Batch&, const BatchPlace&)> transform(const FirstBatch& first, FitOptions& options) {
    if (settings_.augmentation.is_nothing()) return task_.transform;
    std::optional<std::int64_t> classes;
    if (settings_.augmentation.mixup > 0) classes = mixed_classes(first, options);
    std::optional<Augmentation> made;
    try {
      made.emplace(settings_.augmentation, model_, classes, context_.seed);
    } catch (const Error& error) {
      throw Unsuitable(error.what());
    }
    report_.notes.push_back(made->description());
    return [augmentation = *std::move(made), next = task_.transform, &pool = context_.pool](Batch& batch, const BatchPlace& place) {
      augmentation.apply(batch, place.samples, place.epoch, pool);
      if (next) next(batch, place);
    };
  }

  // The classes that mixed labels are probabilities of; nothing where labels are numbers.
  std::optional<std::int64_t> mixed_classes(const FirstBatch& first, FitOptions& options) const {
    std::optional<std::int64_t> classes;
    for (std::size_t i = 0, target = 0; i < losses_.terms.size(); ++i) {
      const LossTerm& term = losses_.terms[i];
      if (term.kind == LossTerm::Kind::ctc) throw Unsuitable("augmentation: mixup cannot mix the sequences of a ctc loss");
      if (term.kind == LossTerm::Kind::gaussian_kl) continue;
      TargetSource& source = options.targets.at(target++);
      const auto dims = first.outputs.find(term.output);
      if (term.kind != LossTerm::Kind::cross_entropy || source.kind != TargetSource::Kind::labels ||
          dims == first.outputs.end() || !is_integer(first.batch.labels.dtype()))
        continue;
      if (dims->second.size() != 2 || first.batch.labels.size() != dims->second[0])
        throw Unsuitable(fmt::format("augmentation: mixup mixes one class of each sample, found labels {} of output '{}' {}",
                                     to_string(first.batch.labels.dims()), term.output, to_string(dims->second)));
      classes = dims->second[1];
      source.row.reset();
    }
    return classes;
  }

  FitOptions fit_options(const FirstBatch& first) {
    FitOptions options = settings_.fit;
    options.seed = context_.seed;
    options.targets = losses_.targets;
    options.transform = transform(first, options);
    options.compute_targets = task_.compute_targets;
    options.check = LabelCheck(losses_, first);
    return options;
  }

  void prepare_checkpoint(const FirstBatch& first, FitOptions& options) {
    const TrainingSupport& support = context_.support;
    if (support.checkpoint.empty()) return;
    Hasher inputs;
    for (const Tensor& input : first.batch.inputs) inputs.add_bytes(input.bytes());
    std::map<std::string, std::string> about = task_.about;
    about["model"] = fingerprint(model_).hash.hex();
    about["data"] = data_.hash();
    about["first inputs"] = inputs.finish().hex();
    about["loss"] = losses_.text;
    about["options"] = options_.to_json().dump();
    about["seed"] = std::to_string(context_.seed);
    const bool exists = std::filesystem::exists(support.checkpoint);
    if (exists && !support.resume)
      throw Unsuitable(fmt::format("checkpoint '{}' is there already: say --resume to go on from it, or remove it",
                                   support.checkpoint.string()));
    if (exists) {
      options.resume = resumed(support.checkpoint, about);
      report_.notes.push_back(fmt::format("went on from checkpoint '{}'", support.checkpoint.string()));
    }
    options.checkpoint_updates = support.checkpoint_updates;
    options.checkpoint = [path = support.checkpoint, about](const FitState& state) { write_checkpoint(path, {about, state}); };
  }

  static FitState resumed(const std::filesystem::path& path, const std::map<std::string, std::string>& about) {
    try {
      Checkpoint kept = read_checkpoint(path);
      require_same_training(path, kept, about);
      return std::move(kept.state);
    } catch (const Error& error) {
      throw Unsuitable(error.what());
    }
  }

  FitObserver observer() {
    FitObserver observer = context_.support.observer;
    observer.begin = [this, next = observer.begin](const FitStart& start) {
      start_ = start;
      if (next) next(start);
    };
    return observer;
  }

  void record(const FitResult& result) {
    std::int64_t elements = 0;
    for (const std::string& name : parameters_) elements += model_.graph.find(name)->constant()->size();
    Json epochs = Json::array();
    for (const EpochRecord& epoch : result.epochs) epochs.push_back(json_of(epoch));
    report_.record = {{"loss", losses_.text},
                      {"optimizer", name(settings_.optimizer.kind)},
                      {"schedule", name(settings_.schedule.kind)},
                      {"tensors", parameters_.size()},
                      {"parameters", elements},
                      {"samples", start_.samples},
                      {"held_out_samples", start_.held_out},
                      {"batch_size", start_.batch},
                      {"threads", context_.pool.size()},
                      {"epochs", std::move(epochs)},
                      {"best_epoch", start_.held_out > 0 ? Json(result.best_epoch) : Json()},
                      {"stopped_early", result.stopped_early}};
    if (settings_.fit.keep_best && start_.held_out > 0 && result.best_epoch == 0)
      report_.notes.push_back("no epoch made the held-out loss lower: the parameters are those of the start");
    if (result.stopped_early)
      report_.notes.push_back(fmt::format("stopped after epoch {}: no lower held-out loss for {} epochs",
                                          result.epochs.back().epoch, settings_.fit.patience));
  }

  Model& model_;
  const TrainingTask& task_;
  const Options& options_;
  PassContext& context_;
  Dataset& data_;
  TrainingSettings settings_;
  ChosenLosses losses_;
  std::vector<std::string> parameters_;
  FitStart start_;
  TrainingReport report_;
};

}  // namespace

TrainingReport train_stage(Model& model, const TrainingTask& task, const Options& options, PassContext& context) {
  try {
    return Stage(model, task, options, context).run();
  } catch (const NoGradient& missing) {
    throw Unsuitable(missing.what());
  }
}

}  // namespace onnxpress
