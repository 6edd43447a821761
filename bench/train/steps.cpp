// bench_train MODEL DATA: trains for some steps on batches in their order; losses and times as one
// line of JSON. The other side of bench/train/compare.py.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/exec/trainer.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"
#include "tools/data/data.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  fs::path model, data, output;
  std::vector<std::string> losses;  // KIND or KIND:OUTPUT
  std::vector<std::string> targets;  // "labels", or the name of an input
  std::string optimizer = "momentum";
  double rate = 0.01, decay = 0, l2 = 0;
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
    LossTerm term{.kind = *kind, .by_sample = true};
    if (colon != std::string::npos) term.output = text.substr(colon + 1, second - colon - 1);
    if (second != std::string::npos) term.log_variance = text.substr(second + 1);
    terms.push_back(std::move(term));
  }
  return terms;
}

Tensor converted(const Tensor& tensor, bool is_double) {
  return is_double && tensor.dtype() == DType::float32 ? tensor.cast(DType::float64) : tensor;
}

nlohmann::json run(const Options& options) {
  ReadResult read = read_model(options.model);
  Model& model = *read.model;
  const auto data = open_data(options.data, model, {.batch = options.batch});
  if (options.is_double) widen(model);
  const auto kind = optimizer_from_name(options.optimizer);
  require(kind.has_value(), "expected an optimizer, found '{}'", options.optimizer);
  TrainerOptions how;
  how.optimizer.kind = *kind;
  how.schedule.rate = options.rate;
  how.threads = options.threads;
  how.reference = options.is_reference;
  how.mode.batch_statistics = !options.fixed_statistics;
  how.regularize = [&](const std::string&, const Tensor&) {
    return Regularization{.l2 = options.l2, .decay = options.decay};
  };
  std::map<std::string, double> times;
  bool is_warm = false;
  if (options.profile)
    how.on_step = [&](const StepTiming& timing) {
      if (is_warm) times[fmt::format("{} {}", timing.op_type, timing.backend)] += timing.duration_us;
    };
  Trainer trainer(model, trainable_parameters(model), loss_terms(options), how);
  std::vector<std::string> input_names;
  for (const Value* input : model.required_inputs()) input_names.push_back(input->name());

  std::vector<double> losses;
  double seconds = 0;
  Batch batch;
  for (std::int64_t step = 0; step < options.warmup + options.steps;) {
    if (!data->next(batch)) {
      data->rewind();
      continue;
    }
    if (batch.samples < options.batch) continue;
    std::vector<Tensor> inputs, targets;
    for (const Tensor& tensor : batch.inputs) inputs.push_back(converted(tensor, options.is_double));
    for (const std::string& target : options.targets) {
      const auto found = std::ranges::find(input_names, target);
      targets.push_back(found != input_names.end()
                            ? inputs[static_cast<std::size_t>(found - input_names.begin())]
                            : batch.labels);
    }
    is_warm = step >= options.warmup;
    const Clock::time_point start = Clock::now();
    losses.push_back(trainer.step(inputs, targets).loss);
    if (is_warm) seconds += std::chrono::duration<double>(Clock::now() - start).count();
    ++step;
  }
  if (!options.output.empty()) {
    trainer.store(model);
    write_model(model, options.output);
  }
  nlohmann::json profile = nlohmann::json::object();
  for (const auto& [name, micros] : times) profile[name] = micros / 1e6;
  return {{"losses", losses},
          {"seconds", seconds},
          {"samples_per_second", static_cast<double>(options.steps * options.batch) / seconds},
          {"parameters", trainer.parameters()},
          {"reserved_bytes", trainer.reserved_bytes()},
          {"profile", profile},
          {"notes", trainer.notes()}};
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
  app.add_option("--target", options.targets, "labels, or the name of an input");
  app.add_option("--optimizer", options.optimizer);
  app.add_option("--rate", options.rate);
  app.add_option("--l2", options.l2);
  app.add_option("--decay", options.decay);
  app.add_option("--steps", options.steps);
  app.add_option("--warmup", options.warmup, "steps that are not timed");
  app.add_option("--batch", options.batch);
  app.add_option("--threads", options.threads);
  app.add_flag("--double", options.is_double, "everything in float64");
  app.add_flag("--reference", options.is_reference, "plain kernels only");
  app.add_flag("--fixed-statistics", options.fixed_statistics);
  app.add_flag("--profile", options.profile, "seconds by operator");
  CLI11_PARSE(app, argc, argv);
  try {
    std::cout << onnxpress::run(options).dump() << '\n';
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_train: {}\n", error.what());
    return 2;
  }
}
