#include "passes/common/calibration.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/ops/registry.h"
#include "passes/common/calibration_cache.h"
#include "passes/common/sample_slices.h"
#include "passes/common/value_accumulator.h"
#include "passes/core/fingerprint.h"

namespace onnxpress {
namespace {

// Values computed from constants alone, nested graphs included.
class ConstantValues {
 public:
  explicit ConstantValues(const Graph& graph) {
    graph.for_each_graph([&](const Graph& inner) {
      for (const Node* node : inner.nodes()) add(*node);
    });
  }

  bool contains(const Value& value) const { return value.is_constant() || found_.contains(&value); }

 private:
  void add(const Node& node) {
    const OpDef* op = operators().find(node);
    if (!op || !op->deterministic || !node.subgraphs().empty()) return;
    for (const Value* input : node.inputs())
      if (input && !contains(*input)) return;
    for (const Value* output : node.outputs())
      if (output) found_.insert(output);
  }

  std::unordered_set<const Value*> found_;
};

// Gathers the statistics of the wanted values of the engine's copy of a model.
class Statistician : public Observer {
 public:
  Statistician(const Model& model, const CalibrationRequest& request, ThreadPool& pool)
      : pool_(pool), scratch_(pool.size()) {
    const ConstantValues constants(model.graph);
    const auto add = [&](const Value& value) {
      if (value.is_constant() || (!request.computed_constants && constants.contains(value))) return;
      const bool is_known = value.type.is_tensor() && value.type.elem != DType::undefined;
      if (is_known && !is_float(value.type.elem)) return;
      std::string key = calibration_key(value);
      if (!request.values.empty() && !request.values.contains(key)) return;
      const auto axis = request.channels.find(key);
      accumulators_.emplace(
          &value, Entry{std::move(key), ValueAccumulator(request.histograms,
                                                         axis == request.channels.end()
                                                             ? std::nullopt
                                                             : std::optional(axis->second))});
    };
    model.graph.for_each_graph([&](const Graph& graph) {
      for (const Value* input : graph.inputs()) add(*input);
      for (const Node* node : graph.nodes())
        for (const Value* output : node->outputs())
          if (output) add(*output);
    });
  }

  bool wants(const Value& value) override { return accumulators_.contains(&value); }
  bool any_layout(const Value& value) override { return !accumulators_.at(&value).accumulator.has_channels(); }
  void observe(const Value& value, const Tensor& tensor) override {
    accumulators_.at(&value).accumulator.observe(tensor, pool_, scratch_);
  }

  void finish(Calibration& calibration) const {
    for (const auto& [value, entry] : accumulators_) {
      const bool is_float_value = value->type.is_tensor() && is_float(value->type.elem);
      if (entry.accumulator.is_seen())
        calibration.values.emplace(entry.key, entry.accumulator.finish());
      else if (is_float_value)
        calibration.unseen.insert(entry.key);
    }
  }

 private:
  struct Entry {
    std::string key;
    ValueAccumulator accumulator;
  };

  ThreadPool& pool_;
  HistogramScratch scratch_;
  std::unordered_map<const Value*, Entry> accumulators_;
};

void check_keys(const Model& model, const CalibrationRequest& request) {
  std::set<std::string, std::less<>> known;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Value* value : graph.inputs()) known.insert(calibration_key(*value));
    for (const Node* node : graph.nodes())
      for (const Value* value : node->outputs())
        if (value) known.insert(calibration_key(*value));
  });
  for (const std::string& key : request.values)
    require(known.contains(key), "calibration: the model has no value '{}'", key);
}

void observe_data(Engine& engine, Dataset& data, Statistician& statistician, const PassContext& context,
                  Calibration& calibration) {
  const auto total = static_cast<std::size_t>(std::max<std::int64_t>(data.samples(), 0));
  SampleSlices slices(engine.model());
  data.rewind();
  for (Batch batch; data.next(batch);) {
    const auto in_batch = [&] {
      return fmt::format("calibrating with {}, samples {} to {}", data.description(), calibration.samples,
                         calibration.samples + batch.samples - 1);
    };
    in_context(in_batch, [&] {
      if (batch.values.empty())
        slices.for_each(batch, [&](std::span<const Tensor> inputs) { engine.run(inputs, &statistician); });
      else
        engine.run(std::span<const RuntimeValue>(batch.values), &statistician);
    });
    calibration.samples += batch.samples;
    if (context.progress) context.progress("calibrating", static_cast<std::size_t>(calibration.samples), total);
  }
  require(calibration.samples > 0, "the calibration data {} holds no samples", data.description());
}

void add(Hasher& hasher, const RuntimeValue& value) {
  hasher.add(static_cast<std::int64_t>(value.kind()));
  if (value.is_tensor()) {
    const Tensor& tensor = value.tensor();
    hasher.add(name(tensor.dtype())).add(to_string(tensor.dims()));
    if (tensor.dtype() == DType::string)
      for (const std::string& text : tensor.strings()) hasher.add(text);
    else if (tensor.defined())
      hasher.add_bytes(tensor.bytes());
  } else if (value.kind() == Type::Kind::optional) {
    if (value.content() != nullptr) add(hasher, *value.content());
  } else {
    for (const RuntimeValue& element : value.elements()) add(hasher, element);
  }
}

// The hash of the file says nothing of how the model is given it: that the first batch shows.
std::string hash_as_given(Dataset& data) {
  const std::string of_file = data.hash();
  if (of_file.empty()) return {};
  Hasher hasher;
  hasher.add(of_file);
  Batch batch;
  data.rewind();
  if (data.next(batch)) {
    std::vector<RuntimeValue> values = batch.values;
    values.insert(values.end(), batch.inputs.begin(), batch.inputs.end());
    for (const RuntimeValue& value : values) add(hasher, value);
  }
  return hasher.finish().hex();
}

Calibration gather(const Model& model, PassContext& context, const CalibrationRequest& request) {
  Calibration calibration;
  std::optional<Statistician> gathered;
  EngineOptions options{.threads = context.pool.size(), .plans = 2};
  // Plans that fuse do not compute what is known.
  if (!request.computed_constants) options.kept = [&](const Value& value) { return gathered->wants(value); };
  Engine engine(model, options);
  check_keys(engine.model(), request);
  Statistician& statistician = gathered.emplace(engine.model(), request, context.pool);
  if (Dataset* data = context.calibration) {
    calibration.data = data->description();
    calibration.generated = data->generated();
    observe_data(engine, *data, statistician, context, calibration);
  } else {
    calibration.data = "generated inputs";
    calibration.generated = true;
    for (std::uint64_t i = 0; i < request.generated_sets; ++i) {
      const std::vector<Tensor> inputs = probe_inputs(model, Random(context.seed).split(i).next());
      engine.run(std::span<const Tensor>(inputs), &statistician);
      ++calibration.samples;
    }
  }
  statistician.finish(calibration);
  return calibration;
}

Calibration from_cache(const Model& model, PassContext& context, const CalibrationRequest& request) {
  const std::string data_hash = hash_as_given(*context.calibration);
  require(!data_hash.empty(), "calibration cache '{}': {} cannot be told from other data",
          context.calibration_cache.string(), context.calibration->description());
  const std::string model_hash = fingerprint(model).hex();
  CalibrationCache cache(context.calibration_cache, data_hash);
  const bool is_first = context.calibrated == nullptr || context.calibrated->empty();
  cache.require_model(model_hash, is_first);
  if (context.calibrated != nullptr) context.calibrated->push_back(model_hash);
  const CalibrationCache::Entry* known = cache.find(model_hash);
  if (known != nullptr && covers(known->request, request)) return known->calibration;
  const CalibrationRequest wanted = known != nullptr ? joined(known->request, request) : request;
  Calibration calibration = gather(model, context, wanted);
  calibration.model_hash = model_hash;
  calibration.data_hash = data_hash;
  cache.store({wanted, calibration});
  return calibration;
}

}  // namespace

const ValueStatistics* Calibration::find(const Value& value) const {
  const auto found = values.find(calibration_key(value));
  return found == values.end() ? nullptr : &found->second;
}

std::string calibration_key(const Value& value) {
  std::string key = value.name();
  const Graph* graph = &value.graph();
  while (const Node* owner = graph->owner()) {
    for (const auto& [name, attribute] : owner->attributes()) {
      const std::vector<Graph*> graphs = attribute.subgraphs();
      const auto found = std::ranges::find(graphs, graph);
      if (found == graphs.end()) continue;
      const std::string index = graphs.size() > 1 ? fmt::format("[{}]", found - graphs.begin()) : "";
      std::string output;
      for (const Value* candidate : owner->outputs())
        if (candidate && output.empty()) output = candidate->name();
      key = fmt::format("{} > {}{} > {}", output, name, index, key);
    }
    graph = &owner->graph();
  }
  return key;
}

Calibration calibrate(const Model& model, PassContext& context, const CalibrationRequest& request) {
  require(context.calibration != nullptr || request.generated_sets > 0,
          "expected calibration data (--calib), found none");
  if (context.calibration != nullptr && !context.calibration_cache.empty()) return from_cache(model, context, request);
  return gather(model, context, request);
}

}  // namespace onnxpress
