// bench_train MODEL DATA: trains for some steps on batches in their order; losses and times as one
// line of JSON. With --serve, then trains on for every line read. The other side of
// bench/train/compare.py and speed.py.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/peak_memory.h"
#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/exec/trainer.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"
#include "tools/data/data.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  fs::path model, data, output, teacher;
  std::vector<std::string> losses;  // KIND or KIND:OUTPUT
  std::vector<std::string> targets;  // "labels", "teacher", or the name of an input
  std::string optimizer = "momentum";
  double rate = 0.01, decay = 0, l2 = 0, temperature = 1;
  double serve = 0;  // seconds of a measurement
  std::int64_t steps = 100, batch = 32, warmup = 0;
  int threads = 0;
  bool is_double = false, is_reference = false, fixed_statistics = false, profile = false;
};

// Every float of the model in float64: initializers, constants, casts and inputs.
void widen(Model& model) {
  const auto wide = [](const Tensor& tensor) {
    return tensor.dtype() == DType::float32 ? tensor.cast(DType::float64) : tensor;
  };
  Graph& graph = model.graph;
  for (Value* value : graph.initializers())
    graph.set_initializer(value, wide(value->initializer()->dense()));
  for (Value* input : graph.inputs())
    if (input->type.elem == DType::float32) input->type.elem = DType::float64;
  for (Value* output : graph.outputs())
    if (output->type.elem == DType::float32) output->type.elem = DType::float64;
  for (Node* node : graph.nodes()) {
    for (Value* output : node->outputs())
      if (output) output->type = Type();
    if (node->is("Cast") && std::get<std::int64_t>(node->attribute("to")->value) == 1)
      graph.set_attribute(node, "to", std::int64_t{11});
    for (const auto& [name, attribute] : node->attributes())
      if (const auto* tensor = std::get_if<NamedTensor>(&attribute.value)) {
        graph.set_attribute(node, name, wide(tensor->tensor));
        break;
      }
  }
}

std::vector<LossTerm> loss_terms(const Options& options) {
  std::vector<LossTerm> terms;
  for (const std::string& text : options.losses) {
    const std::size_t colon = text.find(':');
    const std::size_t second = colon == std::string::npos ? colon : text.find(':', colon + 1);
    const auto kind = loss_from_name(text.substr(0, colon));
    require(kind.has_value(), "expected a loss, found '{}'", text);
    LossTerm term{.kind = *kind, .temperature = options.temperature, .by_sample = true};
    if (colon != std::string::npos) term.output = text.substr(colon + 1, second - colon - 1);
    if (second != std::string::npos) term.log_variance = text.substr(second + 1);
    terms.push_back(std::move(term));
  }
  return terms;
}

Tensor converted(const Tensor& tensor, bool is_double) {
  return is_double && tensor.dtype() == DType::float32 ? tensor.cast(DType::float64) : tensor;
}

TrainerOptions trainer_options(const Options& options) {
  const auto kind = optimizer_from_name(options.optimizer);
  require(kind.has_value(), "expected an optimizer, found '{}'", options.optimizer);
  TrainerOptions how;
  how.optimizer.kind = *kind;
  how.schedule.rate = options.rate;
  how.threads = options.threads;
  how.reference = options.is_reference;
  how.mode.batch_statistics = !options.fixed_statistics;
  how.regularize = [l2 = options.l2, decay = options.decay](const std::string&, const Tensor&) {
    return Regularization{.l2 = l2, .decay = decay};
  };
  return how;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A model in training on batches that are in memory.
class Training {
 public:
  explicit Training(const Options& options)
      : options_(options), read_(read_model(options.model)), batches_(read_batches()) {
    Model& model = *read_.model;
    if (options_.is_double) widen(model);
    TrainerOptions how = trainer_options(options_);
    if (options_.profile)
      how.on_step = [this](const StepTiming& timing) {
        profile_[fmt::format("{} {}", timing.op_type, timing.backend)] += timing.duration_us;
      };
    trainer_.emplace(model, trainable_parameters(model), loss_terms(options_), how);
    for (const Value* value : model.required_inputs()) input_names_.push_back(value->name());
    if (!options_.teacher.empty())
      teacher_.emplace(*read_model(options_.teacher).model, EngineOptions{.threads = options_.threads});
  }

  // The loss of the next batch.
  double step() {
    const Batch& batch = batches_[static_cast<std::size_t>(trainer_->steps()) % batches_.size()];
    std::vector<Tensor> inputs, targets;
    for (const Tensor& tensor : batch.inputs) inputs.push_back(converted(tensor, options_.is_double));
    for (const std::string& target : options_.targets) {
      const auto found = std::ranges::find(input_names_, target);
      if (found != input_names_.end())
        targets.push_back(inputs[static_cast<std::size_t>(found - input_names_.begin())]);
      else
        targets.push_back(target == "teacher" ? teacher_.value().run(inputs).at(0) : batch.labels);
    }
    return trainer_->step(inputs, targets).loss;
  }

  // Trains for `seconds` and at least three steps.
  nlohmann::json measure(double seconds) {
    step();  // caches were anyone's
    std::vector<double> times;
    const Clock::time_point start = Clock::now();
    while (times.size() < 3 || seconds_since(start) < seconds) {
      const Clock::time_point begin = Clock::now();
      step();
      times.push_back(seconds_since(begin) * 1e3);
    }
    const double total = seconds_since(start);
    std::ranges::sort(times);
    return {{"median_ms", times[times.size() / 2]},
            {"items_per_second", static_cast<double>(options_.batch) * static_cast<double>(times.size()) / total},
            {"peak_rss_bytes", peak_bytes()}};
  }

  void forget_profile() { profile_.clear(); }
  // Seconds by operator.
  nlohmann::json profile() const {
    nlohmann::json seconds = nlohmann::json::object();
    for (const auto& [name, micros] : profile_) seconds[name] = micros / 1e6;
    return seconds;
  }

  void write() {
    trainer_->store(*read_.model);
    write_model(*read_.model, options_.output);
  }
  const Trainer& trainer() const { return *trainer_; }

 private:
  std::vector<Batch> read_batches() const {
    const auto data = open_data(options_.data, *read_.model, {.batch = options_.batch});
    std::vector<Batch> batches;
    for (Batch batch; data->next(batch);)
      if (batch.samples == options_.batch) batches.push_back(batch);
    require(!batches.empty(), "{}: expected at least {} samples, found {}", options_.data.string(),
            options_.batch, data->samples());
    return batches;
  }

  const Options& options_;
  ReadResult read_;
  std::vector<Batch> batches_;
  std::vector<std::string> input_names_;
  std::map<std::string, double> profile_;  // microseconds
  std::optional<Trainer> trainer_;
  std::optional<Engine> teacher_;
};

void run(const Options& options) {
  Training training(options);
  std::vector<double> losses;
  for (std::int64_t step = 0; step < options.warmup; ++step) losses.push_back(training.step());
  training.forget_profile();
  const Clock::time_point start = Clock::now();
  for (std::int64_t step = 0; step < options.steps; ++step) losses.push_back(training.step());
  const double seconds = seconds_since(start);
  if (!options.output.empty()) training.write();
  const nlohmann::json line{
      {"losses", losses},
      {"seconds", seconds},
      {"samples_per_second", static_cast<double>(options.steps * options.batch) / seconds},
      {"parameters", training.trainer().parameters()},
      {"reserved_bytes", training.trainer().reserved_bytes()},
      {"peak_rss_bytes", peak_bytes()},
      {"profile", training.profile()},
      {"notes", training.trainer().notes()}};
  std::cout << line.dump() << std::endl;
  if (options.serve <= 0) return;
  for (std::string text; std::getline(std::cin, text);)
    std::cout << training.measure(options.serve).dump() << std::endl;
}

}  // namespace
}  // namespace onnxpress

int main(int argc, char** argv) {
  onnxpress::Options options;
  CLI::App app("trains for some steps");
  app.add_option("model", options.model)->required();
  app.add_option("data", options.data)->required();
  app.add_option("-o,--output", options.output, "where the trained model goes");
  app.add_option("--loss", options.losses, "KIND[:OUTPUT[:LOG_VARIANCE]]")->required();
  app.add_option("--target", options.targets, "labels, teacher, or the name of an input");
  app.add_option("--teacher", options.teacher, "the model whose first output is the target 'teacher'");
  app.add_option("--temperature", options.temperature, "of the loss distillation");
  app.add_option("--optimizer", options.optimizer);
  app.add_option("--rate", options.rate);
  app.add_option("--l2", options.l2);
  app.add_option("--decay", options.decay);
  app.add_option("--steps", options.steps);
  app.add_option("--warmup", options.warmup, "steps that are not timed");
  app.add_option("--batch", options.batch);
  app.add_option("--threads", options.threads);
  app.add_option("--serve", options.serve, "then train for that many seconds for every line read");
  app.add_flag("--double", options.is_double, "everything in float64");
  app.add_flag("--reference", options.is_reference, "plain kernels only");
  app.add_flag("--fixed-statistics", options.fixed_statistics);
  app.add_flag("--profile", options.profile, "seconds by operator");
  CLI11_PARSE(app, argc, argv);
  try {
    onnxpress::run(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_train: {}\n", error.what());
    return 2;
  }
}
