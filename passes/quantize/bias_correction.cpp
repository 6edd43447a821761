#include "passes/quantize/bias_correction.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "graph/ops/evaluate.h"
#include "graph/ops/gemm.h"
#include "graph/ops/quantize_linear.h"
#include "passes/common/linear_operator.h"
#include "passes/quantize/assumed_moments.h"
#include "passes/common/channel_moments.h"

namespace onnxpress {
namespace {

constexpr std::int64_t most_samples = 256;

bool is_linear(const Node& node) {
  return node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm") || node.is("MatMul") ||
         node.is("MatMulNBits", "com.microsoft");
}

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor wide = tensor.cast(DType::float64);
  const auto values = wide.data<double>();
  return {values.begin(), values.end()};
}

// The contents of a value that only depends on constants; nothing otherwise.
std::optional<Tensor> contents(const Value& value, ThreadPool& pool, int depth = 16) {
  if (value.constant()) return *value.constant();
  const Node* node = value.producer();
  if (!node || depth == 0 || !node->subgraphs().empty()) return std::nullopt;
  const OpDef* op = operators().find(*node);
  if (!op || !op->prepare || !op->deterministic) return std::nullopt;
  std::vector<Tensor> inputs;
  for (const Value* input : node->inputs()) {
    std::optional<Tensor> found = input ? contents(*input, pool, depth - 1) : Tensor();
    if (!found) return std::nullopt;
    inputs.push_back(std::move(*found));
  }
  std::vector<const Tensor*> pointers;
  for (const Tensor& input : inputs) pointers.push_back(input.defined() ? &input : nullptr);
  return evaluate(*op, *node, pointers, pool)[value.output_index()];
}

// Where the bias of an operator is.
struct BiasPlace {
  Node* node = nullptr;        // the operator, or the Add behind it
  std::size_t input = 2;
  double factor = 1;           // of the bias in the result: beta
  Value* floats = nullptr;     // a constant
  Node* dequantize = nullptr;  // or int32 codes
  bool missing = false;        // or none yet
};

bool is_int32_bias(const Node& node) {
  return node.is("DequantizeLinear") && node.input(0)->constant() && node.input(0)->constant()->dtype() == DType::int32 &&
         node.input(1)->constant() && (!node.input(2) || node.input(2)->constant());
}

// Fills what holds the operand; false when it is nothing that can be moved finely.
bool read_operand(BiasPlace& place) {
  Value* value = place.node->input(place.input);
  if (value->constant() && is_float(value->constant()->dtype())) {
    place.floats = value;
    return true;
  }
  if (!value->producer() || !is_int32_bias(*value->producer())) return false;
  place.dequantize = value->producer();
  return true;
}

// The Add of a constant behind a product, through Q/DQ pairs.
Node* bias_add(const Node& node) {
  const Value* value = node.output();
  for (int i = 0; i < 3 && is_read_once(*value); ++i) {
    Node* reader = value->uses()[0].node;
    if (reader->is("Add")) return reader;
    if (!reader->is("QuantizeLinear") && !reader->is("DequantizeLinear")) return nullptr;
    value = reader->output();
  }
  return nullptr;
}

std::optional<BiasPlace> find_bias(Node& node, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  BiasPlace place{.node = &node};
  if (node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm")) {
    if (node.is("Gemm")) place.factor = static_cast<double>(GemmAttrs::from(node).beta);
    if (place.factor == 0) return miss("its bias is multiplied by beta=0");
    if (!node.input(2)) {
      if (node.is("Gemm") && !gemm_bias_is_optional(node.opset())) return miss("it has no bias");
      place.missing = true;
      return place;
    }
    if (!read_operand(place)) return miss(fmt::format("its bias '{}' is not a constant", node.input(2)->name()));
    return place;
  }
  Node* add = bias_add(node);
  if (!add) return miss("no bias is added to it");
  place.node = add;
  for (const std::size_t index : {std::size_t{0}, std::size_t{1}}) {
    place.input = index;
    if (read_operand(place)) return place;
  }
  return miss(fmt::format("{} adds nothing that could be corrected", add->describe()));
}

Value* own_constant(Node& node, std::size_t index, Tensor tensor) {
  Value* old = node.input(index);
  if (old && is_read_once(*old)) {
    old->graph().set_initializer(old, std::move(tensor));
    return old;
  }
  Graph& graph = node.graph();
  const std::string name = old ? old->name() : node.output()->name() + "_bias";
  Value* made = graph.add_initializer(graph.unique_name(name), std::move(tensor));
  graph.set_node_input(&node, index, made);
  if (old && old->is_unused()) old->graph().remove_initializer(old);
  return made;
}

// `shift` by channel added to a vector along the last axis; one value becomes one per channel.
std::optional<std::vector<double>> shifted(const std::vector<double>& values, const std::vector<double>& shift) {
  std::vector<double> result = values;
  if (result.size() == 1) result.resize(shift.size(), values[0]);
  if (result.size() % shift.size() != 0) return std::nullopt;
  for (std::size_t i = 0; i < result.size(); ++i) result[i] += shift[i % shift.size()];
  return result;
}

// int32 codes of `values` at these scales, saturating; nothing is said of values out of reach, which
// stay as near as they can.
Tensor int32_codes(const std::vector<double>& values, const std::vector<double>& scales) {
  std::vector<std::int32_t> codes;
  for (std::size_t c = 0; c < values.size(); ++c) {
    const double scale = scales.size() == 1 ? scales[0] : scales[c];
    codes.push_back(static_cast<std::int32_t>(std::clamp(std::nearbyint(values[c] / scale), -2147483647.0, 2147483647.0)));
  }
  return Tensor::of<std::int32_t>({std::ssize(codes)}, codes);
}

// The constant scales of a DequantizeLinear that makes operand `index`; empty when it is not one.
std::vector<double> operand_scales(const Node& node, std::size_t index) {
  const Node* dequantize = node.input(index)->producer();
  if (!dequantize || !dequantize->is("DequantizeLinear") || !dequantize->input(1)->constant()) return {};
  return doubles(*dequantize->input(1)->constant());
}

void add_bias(Node& node, const std::vector<double>& values) {
  const std::vector<double> data = operand_scales(node, 0), weight = operand_scales(node, 1);
  Graph& graph = node.graph();
  const bool as_codes = data.size() == 1 && (weight.size() == 1 || weight.size() == values.size()) &&
                        std::ranges::all_of(weight, [&](double w) { return w * data[0] > 0; });
  const Type& type = node.output()->type;
  const DType floats = type.is_tensor() && is_float(type.elem) ? type.elem : DType::float32;
  if (!as_codes) {
    own_constant(node, 2, Tensor::of<double>({std::ssize(values)}, values).cast(floats));
    return;
  }
  std::vector<double> scales = weight;
  for (double& scale : scales) scale *= data[0];
  const std::string base = node.output()->name() + "_bias";
  Value* codes = graph.add_initializer(graph.unique_name(base + "_quantized"), int32_codes(values, scales));
  const Dims dims = scales.size() == 1 ? Dims{} : Dims{std::ssize(scales)};
  Value* scale = graph.add_initializer(graph.unique_name(base + "_scale"), Tensor::of<double>(dims, scales).cast(floats));
  const QuantizeAttrs attrs{.axis = scales.size() == 1 ? QuantizeAttrs{}.axis : 0};
  Node* dequantize = graph.add_node({.op_type = "DequantizeLinear",
                                     .name = graph.unique_name(base + "_DequantizeLinear"),
                                     .inputs = {codes, scale},
                                     .attributes = attrs.to_attributes()},
                                    &node);
  graph.set_node_input(&node, 2, dequantize->output());
}

// Lowers the bias by `excess`, by channel of the result; false when it has other channels.
bool lower(const BiasPlace& place, const std::vector<double>& excess) {
  std::vector<double> shift = excess;
  for (double& value : shift) value = -value / place.factor;
  if (place.missing) {
    add_bias(*place.node, shift);
    return true;
  }
  if (place.floats) {
    const Tensor& old = *place.floats->constant();
    const std::optional<std::vector<double>> values = shifted(doubles(old), shift);
    if (!values) return false;
    Dims dims = old.dims();
    if (old.size() == 1 && values->size() != 1) {
      if (dims.empty()) dims.push_back(1);
      dims.back() = std::ssize(*values);
    }
    own_constant(*place.node, place.input, Tensor::of<double>(dims, *values).cast(old.dtype()));
    return true;
  }
  Node& dequantize = *place.dequantize;
  const std::vector<double> scales = doubles(*dequantize.input(1)->constant());
  std::vector<double> values = doubles(*dequantize.input(0)->constant());
  if (!is_read_once(*dequantize.output()) || values.size() != shift.size() || (scales.size() != 1 && scales.size() != values.size()))
    return false;
  const std::vector<double> zeros = dequantize.input(2) ? doubles(*dequantize.input(2)->constant()) : std::vector<double>{0};
  if (std::ranges::any_of(zeros, [](double zero) { return zero != 0; })) return false;
  for (std::size_t c = 0; c < values.size(); ++c) values[c] = values[c] * (scales.size() == 1 ? scales[0] : scales[c]) + shift[c];
  own_constant(dequantize, 0, int32_codes(values, scales).reshaped(dequantize.input(0)->constant()->dims()));
  return true;
}

struct Pair {
  Node* quantized = nullptr;
  const Node* original = nullptr;
  BiasPlace bias;
  std::size_t level = 0;  // operators on the longest way to it
};

class Corrector {
 public:
  Corrector(Model& quantized, const Model& original, PassContext& context, Outcome& outcome)
      : quantized_(quantized), original_(original), context_(context), outcome_(outcome) {
    match();
  }

  void empirical() {
    require(context_.calibration != nullptr, "bias_correction=empirical needs calibration data (--calib)");
    std::vector<ChannelsOf> values;
    for (const Pair& pair : pairs_) values.push_back(channels(*pair.original));
    if (values.empty()) return;
    const std::vector<ChannelMoments> expected = measure_moments(original_, values, context_, most_samples);
    std::map<std::size_t, std::vector<std::size_t>> levels;
    for (std::size_t i = 0; i < pairs_.size(); ++i) levels[pairs_[i].level].push_back(i);
    std::size_t done = 0;
    for (const auto& [level, members] : levels) {
      if (context_.progress) context_.progress("correcting biases", done, pairs_.size());
      std::vector<ChannelsOf> at_level;
      for (const std::size_t i : members) at_level.push_back(channels(*pairs_[i].quantized));
      const std::vector<ChannelMoments> found = measure_moments(quantized_, at_level, context_, most_samples);
      for (std::size_t m = 0; m < members.size(); ++m) {
        const std::size_t i = members[m];
        std::vector<double> excess = found[m].mean;
        if (excess.size() != expected[i].mean.size()) {
          miss(*pairs_[i].quantized, "its channels are others than before");
          continue;
        }
        for (std::size_t c = 0; c < excess.size(); ++c) excess[c] -= expected[i].mean[c];
        correct(pairs_[i], excess);
        ++done;
      }
    }
  }

  void analytic() {
    const AssumedMoments moments(original_);
    std::size_t assumed = 0;
    for (const Pair& pair : pairs_) {
      const NormalChannels* data = moments.find(*pair.original->input(0));
      const std::string reason = data ? correct_analytically(pair, *data) : "nothing is known of its input's mean";
      if (!reason.empty())
        miss(*pair.quantized, reason);
      else
        assumed += !data->from_statistics;
    }
    if (assumed > 0)
      outcome_.notes.push_back(fmt::format("{} of the corrected biases rest on inputs taken as standard normal, not on a "
                                           "normalization's statistics", assumed));
  }

  void finish() {
    outcome_.counts["biases_corrected"] = corrected_;
    if (missed_ > 0) outcome_.notes.push_back(fmt::format("{} biases were not corrected, the first: {}", missed_, first_miss_));
    outcome_.changed |= corrected_ > 0;
  }

 private:
  // A product's channels are last, a convolution's behind the samples.
  static ChannelsOf channels(const Node& node) {
    const bool last = node.is("MatMul") || node.is("MatMulNBits", "com.microsoft") || node.is("Gemm");
    return {node.output()->name(), last ? -1 : 1};
  }

  void match() {
    std::map<std::string_view, const Node*> by_output, by_name;
    for (const Node* node : original_.graph.nodes()) {
      if (!is_linear(*node) || !node->output()) continue;
      by_output.emplace(node->output()->name(), node);
      if (!node->name.empty()) by_name.emplace(node->name, node);
    }
    std::map<const Value*, std::size_t> levels;
    for (Node* node : quantized_.graph.nodes()) {
      std::size_t level = 0;
      const auto read = [&](const Value* value) {
        if (const auto found = levels.find(value); found != levels.end()) level = std::max(level, found->second);
      };
      for (const Value* input : node->inputs()) read(input);
      for (const Value* captured : node->captured()) read(captured);
      if (is_linear(*node) && node->output()) pair_up(*node, by_output, by_name, level++);
      for (const Value* output : node->outputs())
        if (output) levels[output] = level;
    }
  }

  void pair_up(Node& node, const std::map<std::string_view, const Node*>& by_output,
               const std::map<std::string_view, const Node*>& by_name, std::size_t level) {
    auto found = by_output.find(node.output()->name());
    if (found == by_output.end()) {
      found = by_name.find(node.name);
      if (node.name.empty() || found == by_name.end()) return;
    }
    // Where nothing was rounded, and nothing before it was, there is nothing to correct.
    std::string reason;
    const std::optional<BiasPlace> bias = find_bias(node, reason);
    if (!bias) return miss(node, reason);
    pairs_.push_back({&node, found->second, *bias, level});
  }

  // Why the bias stays as it is; empty when it was corrected.
  std::string correct_analytically(const Pair& pair, const NormalChannels& data) {
    const Node& before = *pair.original;
    if (before.is("ConvTranspose")) return "how often a ConvTranspose sees an input depends on the place";
    if (before.op_type() != pair.quantized->op_type()) return fmt::format("it became a {}", pair.quantized->op_type());
    const Value* weight = before.input(1);
    if (!weight || !weight->constant() || LinearOperator::obstacle(before)) return "its weight was not a float constant";
    const std::optional<Tensor> rounded = contents(*pair.quantized->input(1), context_.pool);
    if (!rounded || rounded->dims() != weight->constant()->dims()) return "its rounded weight is not known";
    LinearOperator linear = LinearOperator::of(const_cast<Node&>(before));
    std::vector<double> difference = doubles(*rounded);
    const std::vector<double> exact = doubles(*weight->constant());
    for (std::size_t i = 0; i < exact.size(); ++i) difference[i] -= exact[i];
    const Tensor error = Tensor::of<double>(weight->constant()->dims(), difference);
    linear.weight = &error;
    std::vector<double> mean = data.mean;
    if (mean.size() == 1) mean.resize(static_cast<std::size_t>(linear.in.count), data.mean[0]);
    if (std::ssize(mean) != linear.in.count) return "its input has other channels than its weight";
    std::vector<double> excess = linear.response(mean);
    for (double& value : excess) value *= linear.alpha;
    correct(pair, excess);
    return {};
  }

  void correct(const Pair& pair, const std::vector<double>& excess) {
    if (!std::ranges::all_of(excess, [](double value) { return std::isfinite(value); }))
      return miss(*pair.quantized, "the means of its result are not finite");
    if (std::ranges::all_of(excess, [](double value) { return value == 0; })) return;
    if (!lower(pair.bias, excess)) return miss(*pair.quantized, "its bias has other channels");
    ++corrected_;
  }

  void miss(const Node& node, const std::string& reason) {
    if (missed_++ == 0) first_miss_ = node.describe() + ": " + reason;
    if (context_.near_misses) context_.near_misses->push_back({"bias_correction", node.describe(), reason});
  }

  Model& quantized_;
  const Model& original_;
  PassContext& context_;
  Outcome& outcome_;
  std::vector<Pair> pairs_;
  std::size_t corrected_ = 0, missed_ = 0;
  std::string first_miss_;
};

}  // namespace

void correct_biases(Model& quantized, const Model& original, BiasCorrection how, PassContext& context, Outcome& outcome) {
  if (how == BiasCorrection::none) return;
  Corrector corrector(quantized, original, context, outcome);
  if (how == BiasCorrection::empirical)
    corrector.empirical();
  else
    corrector.analytic();
  corrector.finish();
}

}  // namespace onnxpress
