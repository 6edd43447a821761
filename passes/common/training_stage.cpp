#include "passes/common/training_stage.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "graph/exec/gradients.h"
#include "passes/common/batch_augmentation.h"
#include "passes/common/checkpoint.h"
#include "passes/common/dropout_places.h"
#include "passes/common/inference_form.h"
#include "passes/common/loss_choice.h"
#include "passes/common/rebuild_batch_norm.h"
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

// Of two models of the same names.
bool same_initializers(const Model& model, const Model& other) {
  return std::ranges::all_of(model.graph.initializers(), [&](const Value* value) {
    const Tensor* tensor = value->constant();
    return tensor == nullptr || tensor->equals(*other.graph.find(value->name())->constant());
  });
}

// What the task says, else all parameters that the options leave.
std::vector<std::string> parameters_of(const Model& model, const TrainingTask& task, const TrainingSettings& settings) {
  if (!task.parameters.empty()) return task.parameters;
  std::vector<std::string> names = settings.names_tensors ? selectable_parameters(model) : trainable_parameters(model);
  std::erase_if(names, [&](const std::string& name) {
    const Value& value = *model.graph.find(name);
    return std::ranges::find(task.further_parameters, name) != task.further_parameters.end() ||
           !selects(settings.trained, value) || (settings.freezes && selects(settings.frozen, value));
  });
  return names;
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
    const std::unique_ptr<Model> before = model_.clone();
    prepare();
    const FitResult result = fit(*trainer_, model_, losses_.terms, data_, fit_options_, observer());
    trainer_->store(model_);
    for (const std::string& note : trainer_->notes()) report_.notes.push_back(note);
    for (const std::string& note : result.notes) report_.notes.push_back(note);
    record(result);
    report_.changed = !same_initializers(model_, *before);
    return std::move(report_);
  }

 private:
  void prepare() {
    require_inference_form(model_);
    note_idle_modes();
    const FirstBatch first = look_at_first_batch(model_, data_, context_.pool.size());
    choose(first);
    choose_parameters();
    trainer_.emplace(model_, parameters_, losses_.terms, trainer_options());
    set_fit_options(first);
    prepare_checkpoint(first);
  }

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
    parameters_ = parameters_of(model_, task_, settings_);
    if (!task_.parameters.empty()) return;
    const auto of_model = [this](const std::string& name) {
      return std::ranges::find(task_.further_parameters, name) == task_.further_parameters.end();
    };
    const std::vector<std::string> all = settings_.names_tensors ? selectable_parameters(model_) : trainable_parameters(model_);
    const std::size_t frozen = static_cast<std::size_t>(std::ranges::count_if(all, of_model)) - parameters_.size();
    if (parameters_.empty()) throw Unsuitable(without_parameters(frozen));
    if (frozen > 0)
      report_.notes.push_back(fmt::format("{} of {} parameters are frozen", frozen, frozen + parameters_.size()));
    if (const std::size_t made = constant_node_weights(model_))
      report_.notes.push_back(fmt::format("{} weights are made by Constant nodes and are not trained: run simplify before", made));
    note_shared();
    check_reach();
  }

  // What is asked of nodes that the model does not have.
  void note_idle_modes() {
    const auto has = [this](std::string_view op) {
      return std::ranges::any_of(model_.graph.nodes(), [op](const Node* node) { return node->is(op); });
    };
    if (!settings_.keeps_dropout && !has("Dropout")) report_.notes.push_back("keep_dropout=false: the model has no Dropout");
    if (options_.text("batch_norm") == "keep" && !has("BatchNormalization"))
      report_.notes.push_back("batch_norm=keep: the model has no BatchNormalization");
  }

  std::string without_parameters(std::size_t frozen) const {
    if (frozen > 0) return "all parameters are frozen: there is nothing to train";
    if (constant_node_weights(model_) > 0)
      return "the model has no floating-point initializers to train: its weights are made by Constant nodes, run 'simplify' before";
    const bool has_codes =
        std::ranges::any_of(model_.graph.nodes(), [](const Node* node) { return node->is("DequantizeLinear"); });
    return has_codes ? "the model has no floating-point weights to train, it is quantized: train before that ('quantize_aware' does both)"
                     : "the model has no floating-point initializers to train";
  }

  // Equal weights that were stored once (by exporters, or by simplify) look like weights tied on purpose.
  void note_shared() {
    const auto is_shared = [this](const std::string& name) { return model_.graph.find(name)->uses().size() > 1; };
    const auto first = std::ranges::find_if(parameters_, is_shared);
    if (first == parameters_.end()) return;
    const auto count = std::ranges::count_if(parameters_, is_shared);
    report_.notes.push_back(fmt::format("{} of {} parameters {} read in several places and stay{} the same in all of them, the first: '{}'",
                                        count, parameters_.size(), count == 1 ? "is" : "are", count == 1 ? "s" : "", *first));
  }

  // Parameters that the loss does not depend on.
  void check_reach() {
    std::vector<std::string> values;
    for (const LossTerm& term : losses_.terms) {
      values.push_back(term.output);
      if (!term.log_variance.empty()) values.push_back(term.log_variance);
    }
    const std::set<std::string> reached = initializers_before(model_, values);
    std::vector<std::string> idle;
    for (const std::string& name : parameters_)
      if (!reached.contains(name)) idle.push_back(name);
    if (idle.size() == parameters_.size()) throw Unsuitable(fmt::format("the loss {} depends on no parameter", losses_.text));
    if (!idle.empty())
      report_.notes.push_back(fmt::format("the loss does not depend on {} of {} parameters, the first: '{}'", idle.size(),
                                          parameters_.size(), idle.front()));
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
    if (settings_.keeps_zeros) {
      options.masks = zero_masks(model_, parameters_);
      options.masks.insert(task_.masks.begin(), task_.masks.end());
    }
    if (!options.masks.empty())
      report_.notes.push_back(fmt::format("{} weight{} with zeros: they stay 0", options.masks.size(),
                                          options.masks.size() == 1 ? "" : "s"));
    options.threads = context_.pool.size();
    options.recompute = options_.flag("recompute");
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

  void set_fit_options(const FirstBatch& first) {
    fit_options_ = settings_.fit;
    fit_options_.seed = context_.seed;
    fit_options_.threads = context_.pool.size();
    fit_options_.targets = losses_.targets;
    fit_options_.transform = augmented(settings_.augmentation, model_, losses_, first, fit_options_.targets, context_,
                                       task_.transform, report_.notes);
    fit_options_.compute_targets = task_.compute_targets;
    fit_options_.check = SampleCheck(model_, losses_, first);
  }

  void prepare_checkpoint(const FirstBatch& first) {
    const TrainingSupport& support = context_.support;
    if (support.checkpoint.empty()) return;
    Hasher inputs;
    for (const Tensor& input : first.batch.inputs) inputs.add_bytes(input.bytes());
    std::map<std::string, std::string> about = task_.about;
    about["model"] = fingerprint(model_).hex();
    about["data"] = data_.hash();
    about["first inputs"] = inputs.finish().hex();
    about["loss"] = losses_.text;
    const Json options = options_.to_json();
    for (const auto& [option, value] : options.items()) about["option " + option] = value.dump();
    about["seed"] = std::to_string(context_.seed);
    const bool exists = std::filesystem::exists(support.checkpoint);
    require(!exists || support.resume, "checkpoint '{}' is there already: say --resume to go on from it, or remove it",
            support.checkpoint.string());
    if (exists) {
      Checkpoint kept = read_checkpoint(support.checkpoint);
      require_same_training(support.checkpoint, kept, about);
      fit_options_.resume = std::move(kept.state);
      report_.notes.push_back(fmt::format("went on from checkpoint '{}'", support.checkpoint.string()));
    }
    fit_options_.checkpoint_updates = support.checkpoint_updates;
    fit_options_.checkpoint = [path = support.checkpoint, about](const FitState& state) {
      write_checkpoint(path, {about, state});
    };
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
    note_risen_loss(result.epochs);
    if (result.stopped_early)
      report_.notes.push_back(fmt::format("stopped after epoch {}: no lower held-out loss for {} epochs",
                                          result.epochs.back().epoch, settings_.fit.patience));
  }

  // Where the parameters are those of the last epoch.
  void note_risen_loss(const std::vector<EpochRecord>& epochs) {
    constexpr double noise = 1.1;  // how much higher the loss of another epoch may be without a reason
    if (settings_.fit.keep_best && start_.held_out > 0) return;
    const auto first = std::ranges::find_if(epochs, [](const EpochRecord& epoch) { return epoch.epoch > 0; });
    if (first == epochs.end()) return;
    const EpochRecord& last = epochs.back();
    if (last.loss > first->loss + (noise - 1) * std::fabs(first->loss))
      report_.notes.push_back(fmt::format("the loss rose from {:.4g} in epoch {} to {:.4g} in epoch {}: a lower learning_rate may help",
                                          first->loss, first->epoch, last.loss, last.epoch));
  }

  Model& model_;
  const TrainingTask& task_;
  const Options& options_;
  PassContext& context_;
  Dataset& data_;
  TrainingSettings settings_;
  ChosenLosses losses_;
  std::vector<std::string> parameters_;
  std::optional<Trainer> trainer_;
  FitOptions fit_options_;
  FitStart start_;
  TrainingReport report_;
};

}  // namespace

std::map<std::string, Tensor> zero_masks(const Model& model, const std::vector<std::string>& trained) {
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

TrainingReport train_stage(Model& model, const TrainingTask& task, const Options& options, PassContext& context) {
  try {
    if (options.text("batch_norm") != "rebuild") return Stage(model, task, options, context).run();
    const std::unique_ptr<Model> rebuilt = model.clone(), before = model.clone();
    const std::vector<std::string> weights =
        insert_batch_norm(*rebuilt, parameters_of(model, task, TrainingSettings::from(options)), context);
    TrainingReport report = Stage(*rebuilt, task, options, context).run();
    fold_batch_norm(*rebuilt, weights, model);
    report.changed = !same_initializers(model, *before);
    report.notes.push_back(weights.empty() ? "batch_norm=rebuild: there is no trained convolution with a bias that can have one"
                                           : fmt::format("BatchNormalization behind {} convolution{} while training, folded again",
                                                         weights.size(), weights.size() == 1 ? "" : "s"));
    return report;
  } catch (const NotFinite&) {
    throw;
  } catch (const Unsuitable&) {
    throw;
  } catch (const Error& error) {  // of what the training was given: data, options, files of its own
    throw Unsuitable(error.what());
  }
}

}  // namespace onnxpress
