// bench_engine MODEL: how long loading takes and how fast the engine runs, as one line of JSON.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/peak_memory.h"
#include "graph/base/error.h"
#include "graph/exec/dataset.h"
#include "graph/exec/engine.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  fs::path model, read_inputs, write_inputs;
  int threads = 0;
  std::int64_t batch = 0;
  std::vector<std::string> shapes, ranges;
  double seconds = 2;
  std::uint64_t seed = 1;
  bool serve = false;
};

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// "x=1x3x224x224"
std::pair<std::string, Dims> parse_shape(const std::string& text) {
  const std::size_t equals = text.rfind('=');
  require(equals != std::string::npos, "expected NAME=DIMS such as x=1x3x224x224, found '{}'",
          text);
  Dims dims;
  const char* at = text.data() + equals + 1;
  const char* const end = text.data() + text.size();
  while (at < end) {
    std::int64_t size = 0;
    const auto [next, error] = std::from_chars(at, end, size);
    require(error == std::errc() && size > 0 && (next == end || (*next == 'x' && next + 1 < end)),
            "expected NAME=DIMS such as x=1x3x224x224, found '{}'", text);
    dims.push_back(size);
    at = next == end ? next : next + 1;
  }
  return {text.substr(0, equals), dims};
}

// "sr=8000..16000"
std::pair<std::string, std::pair<double, double>> parse_range(const std::string& text) {
  const std::size_t equals = text.rfind('='), dots = text.find("..", equals);
  double low = 0, high = 0;
  const auto number = [&](std::size_t begin, std::size_t end, double& value) {
    const auto [next, error] = std::from_chars(text.data() + begin, text.data() + end, value);
    return error == std::errc() && next == text.data() + end;
  };
  require(equals != std::string::npos && dots != std::string::npos &&
              number(equals + 1, dots, low) && number(dots + 2, text.size(), high) && low <= high,
          "expected NAME=LOW..HIGH such as sr=8000..16000, found '{}'", text);
  return {text.substr(0, equals), {low, high}};
}

// Generated inputs; `batch`, when positive, is the first dim of those that leave theirs open.
std::vector<Tensor> make_inputs(const Model& model, const Options& options) {
  std::map<std::string, Dims> fixed;
  for (const std::string& shape : options.shapes) fixed.insert(parse_shape(shape));
  InputRanges ranges;
  for (const std::string& range : options.ranges) ranges.insert(parse_range(range));
  if (options.batch > 0) {
    const std::vector<Tensor> inputs = probe_inputs(model, options.seed, ranges, fixed);
    const std::vector<Value*> values = model.required_inputs();
    std::string batch_symbol;  // also elsewhere: the state of a recurrent net is [layers,batch,...]
    for (const Value* value : values) {
      const std::optional<Shape>& shape = value->type.shape;
      if (shape && !shape->empty() && (*shape)[0].is_symbol()) batch_symbol = (*shape)[0].symbol();
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::optional<Shape>& shape = values[i]->type.shape;
      if (!shape) continue;
      Dims dims = inputs[i].dims();
      for (std::size_t axis = 0; axis < dims.size(); ++axis) {
        const Dim& dim = (*shape)[axis];
        if (dim.is_symbol() ? dim.symbol() == batch_symbol : axis == 0 && !dim.is_known())
          dims[axis] = options.batch;
      }
      fixed[values[i]->name()] = dims;
    }
  }
  return probe_inputs(model, options.seed, ranges, fixed);
}

fs::path input_path(const fs::path& folder, std::size_t index) {
  return folder / fmt::format("input_{}.pb", index);
}

void write_inputs(const Model& model, const std::vector<Tensor>& inputs, const fs::path& folder) {
  fs::create_directories(folder);
  const std::vector<Value*> values = model.required_inputs();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::ofstream file(input_path(folder, i), std::ios::binary);
    file << tensor_to_bytes(inputs[i], values[i]->name());
    require(file.flush().good(), "cannot write {}", input_path(folder, i).string());
  }
}

std::vector<Tensor> read_inputs(const fs::path& folder) {
  std::vector<Tensor> inputs;
  while (fs::exists(input_path(folder, inputs.size())))
    inputs.push_back(read_tensor(input_path(folder, inputs.size())).tensor);
  return inputs;
}

// Runs for `seconds` and at least three times.
nlohmann::ordered_json measure(Engine& engine, const std::vector<Tensor>& inputs, double seconds,
                               std::int64_t items) {
  engine.run(inputs);  // caches were anyone's
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  while (times.size() < 3 || milliseconds_since(start) < seconds * 1e3) {
    const Clock::time_point begin = Clock::now();
    engine.run(inputs);
    times.push_back(milliseconds_since(begin));
  }
  const double total = milliseconds_since(start);
  const auto count = static_cast<double>(times.size());
  std::ranges::sort(times);
  return {{"calls", times.size()},
          {"median_ms", (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2},
          {"mean_ms", total / count},
          {"min_ms", times.front()},
          {"items_per_second", static_cast<double>(items) * count * 1e3 / total},
          {"peak_rss_bytes", peak_bytes()}};
}

void run(const Options& options) {
  const Clock::time_point start = Clock::now();
  const ReadResult read = read_model(options.model);
  if (!options.write_inputs.empty())
    return write_inputs(*read.model, make_inputs(*read.model, options), options.write_inputs);

  Engine engine(*read.model, {.threads = options.threads});
  double load = milliseconds_since(start);
  nlohmann::ordered_json line{{"model", options.model.filename().string()},
                              {"threads", options.threads},
                              {"ready_ms", load}};
  const std::vector<Tensor> inputs = options.read_inputs.empty() ? make_inputs(*read.model, options)
                                                                 : read_inputs(options.read_inputs);
  require(!inputs.empty(), "the model has no inputs");
  const Clock::time_point first = Clock::now();
  engine.run(inputs);
  load += milliseconds_since(first);
  line["first_inference_ms"] = load;

  std::vector<Type> types;
  for (const Tensor& input : inputs)
    types.push_back(Type::tensor(input.dtype(), to_shape(input.dims())));
  const PlanSummary summary = engine.summary(types);
  line["arena_bytes"] = summary.arena_bytes;
  std::map<std::string, int> backends;
  for (const PlanSummary::Step& step : summary.steps) ++backends[step.backend];
  line["steps"] = backends;
  const std::int64_t items = inputs[0].dims().empty() ? 1 : inputs[0].dims()[0];
  line["batch"] = items;
  if (!options.serve) {
    line.update(measure(engine, inputs, options.seconds, items));
    std::cout << line.dump() << std::endl;
    return;
  }
  std::cout << line.dump() << std::endl;
  for (std::string text; std::getline(std::cin, text);)
    std::cout << measure(engine, inputs, options.seconds, items).dump() << std::endl;
}

}  // namespace
}  // namespace onnxpress

int main(int argc, char** argv) {
  onnxpress::Options options;
  CLI::App app{"Loads a model, runs it on random inputs, and prints one line of JSON."};
  app.add_option("model", options.model, "ONNX file")->required();
  app.add_option("--threads", options.threads, "threads (0: as many as CPUs)");
  app.add_option("--batch", options.batch, "first dim of inputs that leave it open");
  app.add_option("--input-shape", options.shapes, "dims of an input: x=1x3x224x224");
  app.add_option("--input-range", options.ranges, "values of an input: sr=8000..16000");
  app.add_option("--seconds", options.seconds, "length of a measurement");
  app.add_option("--seed", options.seed, "of the random inputs");
  app.add_option("--inputs", options.read_inputs, "take inputs from FOLDER/input_N.pb");
  app.add_option("--write-inputs", options.write_inputs, "only write the inputs to a folder");
  app.add_flag("--serve", options.serve,
               "print what loading took, then measure for every line read");
  CLI11_PARSE(app, argc, argv);
  try {
    onnxpress::run(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_engine: {}\n", error.what());
    return 2;
  }
}
