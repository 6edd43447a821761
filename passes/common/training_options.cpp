#include "passes/common/training_options.h"

#include <algorithm>
#include <cmath>

#include "passes/core/idle_options.h"

namespace onnxpress {
namespace {

using Kind = OptionSpec::Kind;

constexpr double most_epochs = 1e6;

// Numbers that selectors may change: "0.01;tensor:*bias=0".
constexpr OptionSpec shared_options[] = {
    {.name = "loss",
     .default_value = "auto",
     .help =
         "what is minimized: auto, cross_entropy, binary_cross_entropy, mse, l1, huber, kl, ctc, elbo; with outputs, "
         "settings and weights: '0.7*cross_entropy(logits)+0.3*mse(recon,target=x)'"},
    {.name = "epochs",
     .kind = Kind::integer,
     .default_value = "10",
     .help = "passes over the samples",
     .min = 1,
     .max = most_epochs},
    {.name = "batch_size",
     .kind = Kind::integer,
     .default_value = "32",
     .help = "samples in a batch, where the model leaves it open",
     .min = 1,
     .max = 1 << 20},
    {.name = "accumulate",
     .kind = Kind::integer,
     .default_value = "1",
     .help = "batches to an update",
     .min = 1,
     .max = 1 << 20},
    {.name = "optimizer",
     .kind = Kind::choice,
     .default_value = "adam",
     .help = "how parameters follow their gradients",
     .choices = "sgd|momentum|nesterov|adam|adamw|rmsprop"},
    {.name = "learning_rate",
     .kind = Kind::number,
     .default_value = "0.001",
     .help = "the (highest) learning rate",
     .min = 0,
     .max = 1e6},
    {.name = "rate_factors", .help = "factors of the learning rate by parameter: 'op:Conv=0.1;fc*=2'"},
    {.name = "momentum",
     .kind = Kind::number,
     .default_value = "0.9",
     .help = "of momentum and nesterov",
     .min = 0,
     .max = 1},
    {.name = "beta1",
     .kind = Kind::number,
     .default_value = "0.9",
     .help = "of adam and adamw: decay of the mean of gradients",
     .min = 0,
     .max = 0.9999999},
    {.name = "beta2",
     .kind = Kind::number,
     .default_value = "0.999",
     .help = "of adam and adamw: decay of the mean of their squares",
     .min = 0,
     .max = 0.9999999},
    {.name = "epsilon",
     .kind = Kind::number,
     .default_value = "1e-8",
     .help = "of adam, adamw and rmsprop",
     .min = 0,
     .max = 1},
    {.name = "smoothing",
     .kind = Kind::number,
     .default_value = "0.99",
     .help = "of rmsprop: decay of the mean of squares",
     .min = 0,
     .max = 1},
    {.name = "schedule",
     .kind = Kind::choice,
     .default_value = "constant",
     .help = "the learning rate over time",
     .choices = "constant|step|exponential|cosine|one_cycle"},
    {.name = "step_epochs",
     .kind = Kind::number,
     .default_value = "1",
     .help = "of step and exponential: epochs after which the rate is multiplied by factor",
     .min = 1e-6,
     .max = most_epochs},
    {.name = "factor",
     .kind = Kind::number,
     .default_value = "0.1",
     .help = "of step and exponential",
     .min = 0,
     .max = 1},
    {.name = "final_rate",
     .kind = Kind::number,
     .default_value = "0",
     .help = "of cosine and one_cycle: the last learning rate",
     .min = 0,
     .max = 1e6},
    {.name = "warmup",
     .kind = Kind::number,
     .default_value = "0",
     .help = "epochs over which the rate rises; with one_cycle 0.3 of all epochs unless said",
     .min = 0,
     .max = most_epochs},
    {.name = "weight_decay",
     .help = "weights are multiplied by 1 - rate times this at every update: a number, or by parameter: "
             "'0.01;tensor:*bias=0'"},
    {.name = "l2", .help = "this times the weight is added to its gradient; a number, or by parameter"},
    {.name = "l1", .help = "this times the weight's sign is added to its gradient; a number, or by parameter"},
    {.name = "max_norm",
     .help = "bound on the norm of the incoming weights of every output, 0: none; a number, or by parameter"},
    {.name = "clip_norm",
     .kind = Kind::number,
     .default_value = "0",
     .help = "bound on the norm of all gradients together; 0: none",
     .min = 0,
     .max = 1e30},
    {.name = "clip_value",
     .kind = Kind::number,
     .default_value = "0",
     .help = "bound on every element of gradients; 0: none",
     .min = 0,
     .max = 1e30},
    {.name = "label_smoothing",
     .kind = Kind::number,
     .default_value = "0",
     .help = "of cross_entropy: share that goes to all classes alike",
     .min = 0,
     .max = 0.999},
    {.name = "augment",
     .help = "changes samples at random: 'shift=2,flip=horizontal,rotate=10,crop=4,noise=0.05,mixup=0.2'; of flat "
             "inputs with "
             "image=1x28x28; fill=0|edge|reflect, layout=nchw|nhwc, input=NAME"},
    {.name = "dropout",
     .help = "ratio of values that are dropped in front of matrix products behind the first trained layer; or by "
             "value: '0.5;tensor:x=0.2'"},
    {.name = "keep_dropout", .kind = Kind::flag, .default_value = "true", .help = "Dropout nodes of the model drop"},
    {.name = "batch_norm",
     .kind = Kind::choice,
     .default_value = "train",
     .help = "train: by the statistics of each batch, running ones follow; keep: by those of the model; rebuild: "
             "train, and also "
             "behind convolutions it was folded into",
     .choices = "train|keep|rebuild"},
    {.name = "select", .kind = Kind::selector, .help = "parameters that are trained, by node or tensor (tensor:NAME also of one number); default: all"},
    {.name = "freeze", .kind = Kind::selector, .help = "parameters that are not"},
    {.name = "keep_zeros",
     .kind = Kind::flag,
     .default_value = "true",
     .help = "weights that pruning has made 0 stay 0"},
    {.name = "hold_out",
     .kind = Kind::number,
     .default_value = "0.1",
     .help = "share of the samples that is not trained on, and tells which epoch is best",
     .min = 0,
     .max = 0.999},
    {.name = "patience",
     .kind = Kind::integer,
     .default_value = "0",
     .help = "epochs without a lower held-out loss before it stops; 0: never",
     .min = 0,
     .max = most_epochs},
    {.name = "keep_best",
     .kind = Kind::flag,
     .default_value = "true",
     .help = "keep the parameters of the epoch with the lowest held-out loss, those of the start included; else the "
             "last ones"},
    {.name = "ema",
     .kind = Kind::number,
     .default_value = "0",
     .help = "decay of the moving average of parameters that is kept instead of them; 0: none",
     .min = 0,
     .max = 0.9999999},
    {.name = "recompute",
     .kind = Kind::flag,
     .default_value = "false",
     .help = "activations and normalizations are computed again for the gradients instead of being kept: less memory, "
             "more time"},
    {.name = "memory",
     .kind = Kind::number,
     .default_value = "1024",
     .help = "MB of samples held in memory; more are shuffled in parts",
     .min = 0.001,
     .max = 1e9},
};

SelectedNumber selected(const Options& options, std::string_view name, double otherwise, double max) {
  return SelectedNumber::parse(name, options.text(name), otherwise, 0, max);
}

// Options that were said although nothing reads them.
void check_idle(const Options& options, const TrainingSettings& settings) {
  using Optimizer = OptimizerOptions::Kind;
  const Optimizer optimizer = settings.optimizer.kind;
  const bool is_adam = optimizer == Optimizer::adam || optimizer == Optimizer::adamw;
  const std::string& schedule = options.text("schedule");
  const bool has_factor = schedule == "step" || schedule == "exponential";
  const bool has_end = schedule == "cosine" || schedule == "one_cycle";
  const OptionPlace places[] = {
      {"momentum", optimizer == Optimizer::momentum || optimizer == Optimizer::nesterov,
       "optimizer=momentum or nesterov"},
      {"beta1", is_adam, "optimizer=adam or adamw"},
      {"beta2", is_adam, "optimizer=adam or adamw"},
      {"epsilon", is_adam || optimizer == Optimizer::rmsprop, "optimizer=adam, adamw or rmsprop"},
      {"smoothing", optimizer == Optimizer::rmsprop, "optimizer=rmsprop"},
      {"step_epochs", has_factor, "schedule=step or exponential"},
      {"factor", has_factor, "schedule=step or exponential"},
      {"final_rate", has_end, "schedule=cosine or one_cycle"},
      {"label_smoothing",
       std::ranges::any_of(settings.losses,
                           [](const LossSpec& loss) { return loss.name == "auto" || loss.name == "cross_entropy"; }),
       "loss=cross_entropy"},
      {"label_smoothing",
       std::ranges::any_of(settings.losses, [](const LossSpec& loss) { return !loss.settings.contains("label_smoothing"); }),
       "losses that do not say it"},
      {"patience", settings.fit.patience == 0 || settings.fit.hold_out > 0, "hold_out above 0"},
      {"keep_best", !settings.fit.keep_best || settings.fit.hold_out > 0, "hold_out above 0"},
  };
  refuse_idle(options, places);
}

}  // namespace

std::vector<OptionSpec> training_options(std::initializer_list<OptionSpec> own) {
  std::vector<OptionSpec> all(own);
  for (const OptionSpec& shared : shared_options)
    if (std::ranges::find(own, shared.name, &OptionSpec::name) == own.end()) all.push_back(shared);
  return all;
}

TrainingSettings TrainingSettings::from(const Options& options) {
  TrainingSettings settings{.trained = Selector(options.text("select")),
                            .frozen = Selector(options.text("freeze")),
                            .names_tensors = options.text("select").find("tensor:") != std::string::npos};
  settings.losses = in_context([] { return "option 'loss'"; }, [&] { return parse_losses(options.text("loss")); });
  settings.label_smoothing = options.number("label_smoothing");
  settings.fit = {.epochs = options.integer("epochs"),
                  .batch = options.integer("batch_size"),
                  .accumulation = options.integer("accumulate"),
                  .hold_out = options.number("hold_out"),
                  .patience = options.integer("patience"),
                  .keep_best = options.flag("keep_best"),
                  .keep_start = options.flag("keep_best"),
                  .average = options.number("ema"),
                  .most_bytes = static_cast<std::size_t>(options.number("memory") * 1e6)};
  settings.optimizer = {.kind = *optimizer_from_name(options.text("optimizer")),
                        .momentum = options.number("momentum"),
                        .beta1 = options.number("beta1"),
                        .beta2 = options.number("beta2"),
                        .epsilon = options.number("epsilon"),
                        .smoothing = options.number("smoothing")};
  settings.schedule = {.kind = *schedule_from_name(options.text("schedule")),
                       .rate = options.number("learning_rate"),
                       .factor = options.number("factor"),
                       .final_rate = options.number("final_rate")};
  settings.step_epochs = options.number("step_epochs");
  settings.warmup_epochs = options.number("warmup");
  constexpr double usual_rise = 0.3;  // of a cycle, as in PyTorch's OneCycleLR
  if (settings.schedule.kind == Schedule::Kind::one_cycle && !options.given("warmup"))
    settings.warmup_epochs = usual_rise * static_cast<double>(settings.fit.epochs);
  settings.clip_norm = options.number("clip_norm");
  settings.clip_value = options.number("clip_value");
  settings.rate_factors = selected(options, "rate_factors", 1, 1e6);
  settings.weight_decay = selected(options, "weight_decay", 0, 1e6);
  settings.l1 = selected(options, "l1", 0, 1e6);
  settings.l2 = selected(options, "l2", 0, 1e6);
  settings.max_norm = selected(options, "max_norm", 0, 1e30);
  settings.dropout = selected(options, "dropout", 0, 0.999);
  settings.augmentation = in_context([] { return "option 'augment'"; },
                                     [&] { return AugmentationOptions::parse(options.text("augment")); });
  settings.batch_statistics = options.text("batch_norm") != "keep";
  settings.keeps_dropout = options.flag("keep_dropout");
  settings.keeps_zeros = options.flag("keep_zeros");
  settings.freezes = !options.text("freeze").empty();
  require(settings.warmup_epochs < static_cast<double>(settings.fit.epochs),
          "option 'warmup': expected fewer than the {} epochs, found {}", settings.fit.epochs, settings.warmup_epochs);
  check_idle(options, settings);
  return settings;
}

void TrainingSettings::check_model(const Model& model) const {
  const std::pair<std::string_view, const SelectedNumber*> numbers[] = {{"rate_factors", &rate_factors},
                                                                        {"weight_decay", &weight_decay},
                                                                        {"l1", &l1},
                                                                        {"l2", &l2},
                                                                        {"max_norm", &max_norm},
                                                                        {"dropout", &dropout}};
  for (const auto& [option, number] : numbers)
    in_context([&, &name = option] { return fmt::format("option '{}'", name); },
               [&, &values = *number] { values.require_all_match(model); });
}

Schedule TrainingSettings::schedule_of(std::int64_t updates) const {
  const auto in_updates = [&](double epochs) {
    return static_cast<std::int64_t>(std::llround(epochs * static_cast<double>(updates)));
  };
  Schedule result = schedule;
  result.period = std::max<std::int64_t>(1, in_updates(step_epochs));
  result.warmup = in_updates(warmup_epochs);
  result.total = updates * fit.epochs;
  return result;
}

}  // namespace onnxpress
