// scheme=dynamic: activations are quantized when the model runs (DynamicQuantizeLinear), weights now.
// The patterns are those that ONNX Runtime fuses: DynamicQuantizeLinear, MatMulInteger, Cast, Mul and
// Add become DynamicQuantizeMatMul or MatMulIntegerToFloat there.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "graph/base/error.h"
#include "graph/ops/upgrade.h"
#include "passes/quantize/dynamic_forms.h"
#include "passes/quantize/records.h"
#include "passes/quantize/rounding.h"
#include "passes/quantize/tuning.h"

namespace onnxpress {
namespace {

// DynamicQuantizeLinear; and DequantizeLinear with a scale per channel.
constexpr std::int64_t least_opset = 11, per_channel_opset = 13;

// File bytes that the nodes around a weight's codes take at most: names stand where a value is made
// and where it is read.
std::size_t overhead_bytes(const DynamicWeight& weight) {
  std::size_t bytes = 170 + 10 * weight.weight.value->name().size();
  for (const DynamicSite& site : weight.sites)
    bytes += 520 + 20 * known_name(*site.node).size();
  if (weight.sites.empty()) bytes += 20 * weight.weight.value->uses().size();
  return bytes;
}

// Whether an operator may read it from DequantizeLinear, which has one scale per channel since
// opset 13.
bool may_be_dequantized(const DynamicWeight& weight) {
  return weight.form == DynamicForm::weights || weight.form == DynamicForm::recurrent || weight.moved ||
         weight.sites.size() < weight.weight.value->uses().size();
}

class DynamicScheme {
 public:
  DynamicScheme(Model& model, PassContext& context, const QuantizeRequest& request)
      : model_(model), context_(context), request_(request) {}

  Outcome run() {
    weights_ = find_dynamic_weights(model_, request_, misses_);
    if (!request_.may_grow) std::erase_if(weights_, [&](const DynamicWeight& weight) { return would_grow(weight); });
    round();
    convert();
    return tell();
  }

 private:
  void miss(const DynamicWeight& weight, std::string reason) {
    misses_.push_back({"quantize", weight.weight.node->describe(), std::move(reason)});
  }

  bool would_grow(const DynamicWeight& weight) {
    const Tensor& tensor = *weight.weight.value->constant();
    const auto& axis = weight.weight.channel_axis;
    const auto channels = static_cast<std::size_t>(axis ? tensor.dim(static_cast<std::size_t>(*axis)) : 1);
    const std::size_t after = static_cast<std::size_t>(tensor.size()) + 8 * channels + overhead_bytes(weight);
    if (after < tensor.byte_size()) return false;
    miss(weight, fmt::format("'{}' would not shrink: {} bytes now, {} quantized with its scales and nodes",
                             weight.weight.value->name(), tensor.byte_size(), after));
    return true;
  }

  bool is_asymmetric(const DynamicWeight& weight) const {
    // DynamicQuantizeLSTM takes no zero points per channel, ConvInteger none in ONNX Runtime;
    // MatMulInteger with a stack of matrices none either.
    const bool per_channel =
        request_.granularity == Granularity::Kind::channel && weight.weight.channel_axis.has_value();
    if (request_.symmetric || weight.form == DynamicForm::recurrent) return false;
    if (weight.form == DynamicForm::convolution) return !per_channel;
    if (weight.form == DynamicForm::product) return !per_channel || weight.weight.value->constant()->rank() == 2;
    return true;
  }

  DType storage_of(const DynamicWeight& weight) const {
    if (weight.form == DynamicForm::convolution) return DType::uint8;
    if (weight.form == DynamicForm::recurrent) return DType::int8;
    return request_.weight_type.value_or(is_asymmetric(weight) ? DType::uint8 : DType::int8);
  }

  RoundingTask task_of(const DynamicWeight& weight) const {
    const bool asymmetric = is_asymmetric(weight);
    int bits = weight.bits;
    const bool is_multiplied = weight.form == DynamicForm::product || weight.form == DynamicForm::recurrent;
    if (is_multiplied && storage_of(weight) == DType::int8 && request_.target.reduced_weight_range())
      bits = std::min(bits, 7);
    // Codes are chosen as the natural type of the grid, and moved to the other one afterwards.
    RoundingTask task{.weight = weight.weight,
                      .type = {bits, !asymmetric, asymmetric ? DType::uint8 : DType::int8},
                      .granularity = Granularity::per_tensor(),
                      .grid = {.scale_type = weight.form == DynamicForm::lookup ? DType::undefined : DType::float32,
                               .power_of_two = request_.power_of_two}};
    if (request_.granularity == Granularity::Kind::channel && weight.weight.channel_axis && can_be_per_channel(weight))
      task.granularity = Granularity::per_channel(*weight.weight.channel_axis);
    return task;
  }

  bool can_be_per_channel(const DynamicWeight& weight) const {
    return !may_be_dequantized(weight) || model_.graph.opset() >= per_channel_opset;
  }

  void round() {
    std::vector<RoundingTask> tasks;
    for (const DynamicWeight& weight : weights_) tasks.push_back(task_of(weight));
    std::vector<RoundingResult> results = round_weights(model_, tasks, context_, request_);
    tune_weights(model_, tasks, results, request_);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const DynamicWeight& weight = weights_[i];
      if (!results[i].note.empty()) notes_[results[i].note] += 1;
      if (results[i].quantized) store(weight, tasks[i], std::move(results[i]));
      else miss(weight, results[i].obstacle);
    }
  }

  void store(const DynamicWeight& weight, const RoundingTask& task, RoundingResult result) {
    QuantizedTensor& quantized = *result.quantized;
    const DType storage = storage_of(weight);
    stays_symmetric_ |= !request_.symmetric && task.type.symmetric;
    QuantizedRecord record =
        weight_record(weight.weight, quantized, task.type, operator_name(weight.form));
    if (storage != quantized.codes.dtype()) flip_sign(quantized, storage);
    record.storage = storage;
    if (record.zero_point && storage != task.type.storage) *record.zero_point += storage == DType::uint8 ? 128 : -128;
    record.output_snr_db = result.output_snr_db;
    record.bytes_after = stored_bytes(quantized);
    before_ += *record.bytes_before;
    after_ += *record.bytes_after;
    records_.push_back(record.to_json());
    const bool swapped = !weight.sites.empty() && std::ranges::all_of(weight.sites, &DynamicSite::transposed);
    stored_.emplace(weight.weight.value, DynamicWriter::store(weight, std::move(quantized), swapped));
  }

  // int8 codes as uint8 with 128 more, or back.
  static void flip_sign(QuantizedTensor& quantized, DType storage) {
    const auto flipped = [storage](const Tensor& codes) {
      Tensor result = Tensor::uninitialized(storage, codes.dims());
      std::ranges::transform(codes.bytes(), result.mutable_bytes().begin(),
                             [](std::byte code) { return code ^ std::byte{0x80}; });
      return result;
    };
    if (!quantized.zero_point.defined())
      quantized.zero_point = Tensor(quantized.codes.dtype(), quantized.scale.dims());
    quantized.codes = flipped(quantized.codes);
    quantized.zero_point = flipped(quantized.zero_point);
  }

  void convert() {
    // In node order, so that activations are quantized before their first reader.
    std::unordered_map<const Node*, std::vector<std::pair<const DynamicSite*, const StoredCodes*>>> sites;
    for (const DynamicWeight& weight : weights_) {
      const auto stored = stored_.find(weight.weight.value);
      if (stored == stored_.end()) continue;
      for (const DynamicSite& site : weight.sites) sites[site.node].emplace_back(&site, &stored->second);
    }
    std::vector<Graph*> graphs;
    model_.graph.for_each_graph([&](Graph& graph) { graphs.push_back(&graph); });
    for (Graph* graph : graphs)
      for (Node* node : graph->nodes())
        if (const auto found = sites.find(node); found != sites.end()) convert(*node, found->second);
    for (const DynamicWeight& weight : weights_) {
      const auto stored = stored_.find(weight.weight.value);
      if (stored == stored_.end()) continue;
      // Gone with its last reader?
      Value* const left = stored->second.codes->graph().find(stored->second.name);
      if (left != nullptr && left == weight.weight.value) writer_.dequantize(left, stored->second);
    }
  }

  void convert(Node& node, const std::vector<std::pair<const DynamicSite*, const StoredCodes*>>& found) {
    const auto& [site, codes] = found.front();
    if (node.is("LSTM")) {
      if (found.size() != 2) return;  // the other one cannot be quantized, as is told
      const bool in_order = site->operand < found[1].first->operand;
      model_.opsets.emplace("com.microsoft", 1);
      writer_.recurrent(node, *found[in_order ? 0 : 1].second, *found[in_order ? 1 : 0].second);
      ++counts_["DynamicQuantizeLSTM"];
      return;
    }
    const DynamicForm form = node.is("Conv")     ? DynamicForm::convolution
                             : node.is("Gather") ? DynamicForm::lookup
                                                 : DynamicForm::product;
    ++counts_[std::string(operator_name(form))];
    if (form == DynamicForm::convolution) writer_.convolution(*site, *codes);
    else if (form == DynamicForm::lookup) writer_.lookup(*site, *codes);
    else writer_.product(*site, *codes);
  }

  Outcome tell() {
    Outcome outcome;
    outcome.layers = std::move(records_);
    outcome.changed = !outcome.layers.empty();
    outcome.counts = {{"quantized", outcome.layers.size()},
                      {"left", misses_.size()},
                      {"bytes_before", before_},
                      {"bytes_after", after_}};
    for (const auto& [form, count] : counts_) outcome.counts[form] = count;
    for (const auto& [note, count] : notes_)
      outcome.notes.push_back(count > 1 ? fmt::format("{} ({} weights)", note, count) : note);
    const auto is_narrow = [](const DynamicWeight& weight) { return weight.bits < 8; };
    if (!outcome.changed) {
      outcome.notes.push_back("no weight to quantize");
    } else {
      if (std::ranges::any_of(weights_, is_narrow))
        outcome.notes.push_back(
            "weights of fewer than 8 bits are stored in 8: integer operators have no narrower ones");
      if (stays_symmetric_)
        outcome.notes.push_back("weights whose integer operator takes no zero point per channel are symmetric");
      if (const std::int64_t count = counts_["ConvInteger"]; count > 0)
        outcome.notes.push_back(fmt::format(
            "{} Conv became ConvInteger, which ONNX Runtime may run slower than the float Conv: scheme=static is the "
            "fast form of convolutions", count));
    }
    if (!misses_.empty())
      outcome.notes.push_back(fmt::format("{} operators or weights left as they were, the first: {}: {}",
                                          misses_.size(), misses_[0].subject, misses_[0].reason));
    if (context_.near_misses)
      context_.near_misses->insert(context_.near_misses->end(), misses_.begin(), misses_.end());
    return outcome;
  }

  Model& model_;
  PassContext& context_;
  const QuantizeRequest& request_;
  std::vector<NearMiss> misses_;
  std::vector<DynamicWeight> weights_;  // their values may be gone once convert() has run
  std::unordered_map<const Value*, StoredCodes> stored_;
  DynamicWriter writer_;
  std::vector<Json> records_;
  std::map<std::string, std::int64_t> notes_, counts_;
  std::size_t before_ = 0, after_ = 0;
  bool stays_symmetric_ = false;  // a weight that was to have a zero point
};

}  // namespace

void check_dynamic(const QuantizeRequest& request) {
  using Id = Target::Id;
  const Id target = request.target.id;
  require(target != Id::tensorrt && target != Id::qnn,
          "scheme=dynamic: target '{}' has no DynamicQuantizeLinear, expected ort-cpu, ort-cpu-avx2, openvino or generic",
          request.target.name());
  require(request.form == Form::automatic || request.form == Form::qoperator,
          "scheme=dynamic is written in integer operators, expected form=auto or form=qoperator");
  require(request.activation_bits == 8 && request.activation_type.value_or(DType::uint8) == DType::uint8 &&
              !request.symmetric_activations.value_or(false),
          "scheme=dynamic: DynamicQuantizeLinear makes uint8 with a zero point, expected no other activations");
  const DType type = request.weight_type.value_or(DType::int8);
  require(type == DType::int8 || type == DType::uint8, "scheme=dynamic: expected weights of int8 or uint8, found {}",
          name(type));
  require(request.granularity != Granularity::Kind::block,
          "scheme=dynamic: MatMulInteger has one scale per column or tensor, found granularity=block");
  require(request.scale_type == DType::undefined, "scheme=dynamic: scales=fp16 is for scheme=weights");
  const auto fits = [](int bits) { return bits <= 8; };
  require(fits(request.weight_bits), "scheme=dynamic: expected weights of at most 8 bits, found {}", request.weight_bits);
  for (const BitsRule& rule : request.overrides)
    require(fits(rule.bits), "scheme=dynamic: expected at most 8 bits for '{}', found {}", rule.selector, rule.bits);
}

Outcome quantize_dynamic(Model& model, PassContext& context, const QuantizeRequest& request) {
  check_dynamic(request);
  return DynamicScheme(model, context, request).run();
}

std::int64_t dynamic_opset(const Model& model, const QuantizeRequest& request) {
  check_dynamic(request);
  std::vector<NearMiss> misses;
  const std::vector<DynamicWeight> weights = find_dynamic_weights(model, request, misses);
  if (weights.empty()) return 0;
  const bool per_channel =
      request.granularity == Granularity::Kind::channel && std::ranges::any_of(weights, may_be_dequantized);
  if (per_channel && model.graph.opset() < per_channel_opset && upgrade_obstacles(model, per_channel_opset).empty())
    return per_channel_opset;
  return least_opset;
}

}  // namespace onnxpress
