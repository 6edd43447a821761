#include "passes/quantize/sensitivity.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

Outcome run_scheme(Model& model, PassContext& context, const QuantizeRequest& request) {
  switch (request.scheme) {
    case Scheme::static_ranges: return quantize_static(model, context, request);
    case Scheme::dynamic: return quantize_dynamic(model, context, request);
    case Scheme::weights: return quantize_weights_only(model, context, request);
  }
  return {};
}

// The first node of the main graph or a subgraph that reads the tensor; nullptr: none.
const Node* first_reader(const Model& model, std::string_view tensor) {
  const Node* found = nullptr;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes())
      for (const Value* input : node->inputs())
        if (!found && input && input->name() == tensor) found = node;
  });
  return found;
}

bool is_weight(const Json& record) { return record.value("kind", "weight") == "weight"; }

// Copies one value of the main graph as it is produced.
class Capture : public Observer {
 public:
  Capture(const Graph& graph, std::string name) : graph_(graph), name_(std::move(name)) {}
  bool wants(const Value& value) override { return &value.graph() == &graph_ && value.name() == name_; }
  void observe(const Value&, const Tensor& tensor) override { values = tensor.to_floats(); }
  std::vector<float> values;

 private:
  const Graph& graph_;
  std::string name_;
};

const Node* node_named(const Graph& graph, std::string_view name) {
  for (const Node* node : graph.nodes())
    if (node->name == name || (node->name.empty() && node->output() && node->output()->name() == name)) return node;
  return nullptr;
}

// Where what the node made is floats again: it may make codes now (rows of codes, sums of products of
// codes), which nodes that the original has not turn back.
const Value* result_in_floats(const Node& node, const Graph& original, const TypeInference& types) {
  constexpr int longest = 6;
  const Value* value = node.output();
  for (int i = 0; i < longest && value && !value->is_output(); ++i) {
    const bool made_codes = i > 0 || is_integer(types.type(value).elem);
    if (!made_codes || value->uses().size() != 1) return value;
    const Node* reader = value->uses()[0].node;
    if (node_named(original, reader->name)) return value;
    value = reader->output();
  }
  return value;
}

}  // namespace

std::string exact_selector(std::string_view kind, std::string_view name) {
  std::string text(kind);
  text += ':';
  for (const char c : name) {
    // Separators of selectors and rules cannot be escaped: any character stands for them.
    if (c == ';' || c == '=' || c == ',' || c == '\'') {
      text += '?';
      continue;
    }
    if (c == '*' || c == '?' || c == '[' || c == ']' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::int64_t affordable_samples(const Model& model, std::size_t trials) {
  constexpr double most_macs = 2e12;
  const auto macs = static_cast<double>(std::max<std::int64_t>(count_macs(model).macs, 1));
  const double samples = most_macs / (macs * static_cast<double>(std::max<std::size_t>(trials, 1)));
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(samples, 1e6)), 16, 512);
}

QuantizationTrials::QuantizationTrials(const Model& model, PassContext& context, const QuantizeRequest& request)
    : model_(model), context_(context), request_(request), cache_(context.calibration_cache) {
  request_.automatic_bits = false;
  request_.bias_correction = BiasCorrection::none;
  request_.may_grow = true;
  if (request_.rounding != Rounding::mse && request_.rounding != Rounding::automatic) request_.rounding = Rounding::nearest;
  if (cache_.empty() && request_.scheme == Scheme::static_ranges) {
    std::string name = (std::filesystem::temp_directory_path() / "onnxpress-calibration-XXXXXX").string();
    const int file = ::mkstemp(name.data());
    require(file >= 0, "cannot make a temporary file in {}", std::filesystem::temp_directory_path().string());
    ::close(file);
    std::filesystem::remove(name);
    cache_ = temporary_ = name;
  }
  std::map<std::string, std::size_t> by_selector;
  for (const Json& record : run({}).outcome.layers) {
    if (!is_weight(record)) continue;
    const std::string tensor = record.at("tensor");
    const Node* reader = first_reader(model_, tensor);
    std::string node = record.at("node");
    if (node.empty() && reader && reader->output()) node = reader->output()->name();
    // Activations go by node, weights alone by tensor.
    const std::string selector =
        request_.scheme == Scheme::weights ? exact_selector("tensor", tensor) : exact_selector("name", node);
    if (reader) {
      const bool is_given = std::ranges::any_of(request.overrides, [&](const BitsRule& rule) {
        const Value* value = nullptr;
        for (const Value* input : reader->inputs())
          if (input && input->name() == tensor) value = input;
        return value && Selector(rule.selector).matches(*reader, *value);
      });
      if (is_given) continue;
    }
    const auto [at, is_new] = by_selector.emplace(selector, units_.size());
    if (is_new) units_.push_back({.selector = selector, .node = node, .op = record.at("op")});
    units_[at->second].tensors.push_back(tensor);
    const Json &elements = record.at("elements"), &bytes = record.at("bytes_before");
    if (elements.is_number()) units_[at->second].elements += elements.get<std::int64_t>();
    if (bytes.is_number()) units_[at->second].bytes_before += bytes.get<std::int64_t>();
  }
}

QuantizationTrials::~QuantizationTrials() {
  std::error_code ignored;
  if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
}

QuantizationTrials::Trial QuantizationTrials::run(const std::vector<BitsRule>& rules) {
  QuantizeRequest request = request_;
  request.overrides.insert(request.overrides.end(), rules.begin(), rules.end());
  Trial trial{.model = model_.clone()};
  PassContext context{.options = context_.options,
                      .pool = context_.pool,
                      .seed = context_.seed,
                      .calibration = context_.calibration,
                      .near_misses = &trial.left,
                      .calibration_cache = cache_,
                      .calibrated = context_.calibrated};
  if (context.calibration) context.calibration->rewind();
  trial.outcome = run_scheme(*trial.model, context, request);
  return trial;
}

UnitSensitivity QuantizationTrials::measure(std::size_t unit, int bits, const OutputJudge& judge, bool local) {
  UnitSensitivity found{.unit = unit, .bits = bits};
  const QuantizedUnit& of = units_[unit];
  try {
    const Trial trial = run({{"*", 0}, {of.selector, bits}});
    found.records = trial.outcome.layers;
    double signal_weighted = 0;
    std::int64_t elements = 0;
    for (const Json& record : trial.outcome.layers) {
      if (!is_weight(record) || std::ranges::find(of.tensors, record.at("tensor").get<std::string>()) == of.tensors.end()) continue;
      if (record.at("bytes_after").is_number()) found.bytes += record.at("bytes_after").get<std::int64_t>();
      const std::int64_t count = record.at("elements").is_number() ? record.at("elements").get<std::int64_t>() : 1;
      if (record.at("snr_db").is_number()) signal_weighted += std::pow(10, -record.at("snr_db").get<double>() / 10) * static_cast<double>(count);
      elements += count;
    }
    if (elements == 0) {
      found.failure = fmt::format("it is not quantized at {} bits", bits);
      return found;
    }
    if (signal_weighted > 0) found.weight_snr_db = -10 * std::log10(signal_weighted / static_cast<double>(elements));
    found.quality = judge.judge(*trial.model);
    if (local) {
      const double noise = local_noise(*trial.model, of, judge);
      if (std::isfinite(noise) && noise > 0) found.local_snr_db = -10 * std::log10(noise);
    }
  } catch (const Error& error) {
    found.failure = error.what();
  }
  return found;
}

// |difference|^2 / |result|^2 of the unit's node on the first batches; NaN when it is not found.
double QuantizationTrials::local_noise(const Model& quantized, const QuantizedUnit& unit, const OutputJudge& judge) const {
  constexpr std::size_t batches = 2;
  const Node *before = node_named(model_.graph, unit.node), *after = node_named(quantized.graph, unit.node);
  if (!before || !after) return std::nan("");
  TypeInference types(quantized);
  types.run();
  const Value* result = result_in_floats(*after, model_.graph, types);
  if (!result) return std::nan("");
  Engine original(model_, {.threads = context_.pool.size()}), changed(quantized, {.threads = context_.pool.size()});
  Capture expected(original.model().graph, before->output()->name()), found(changed.model().graph, result->name());
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < std::min(batches, judge.inputs().size()); ++i) {
    original.run(std::span<const Tensor>(judge.inputs()[i]), &expected);
    changed.run(std::span<const Tensor>(judge.inputs()[i]), &found);
    if (expected.values.size() != found.values.size()) return std::nan("");
    for (std::size_t k = 0; k < found.values.size(); ++k) {
      const double x = static_cast<double>(expected.values[k]), y = static_cast<double>(found.values[k]);
      signal += x * x;
      noise += (x - y) * (x - y);
    }
  }
  return noise / signal;
}

}  // namespace onnxpress
