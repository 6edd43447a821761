#include "passes/quantize/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "graph/ops/infer.h"
#include "passes/common/linear_operator.h"
#include "passes/common/weights.h"

namespace onnxpress {
namespace {

constexpr double large_ratio = 8, wide_concat = 16, much_clipped = 1e-3, far_out_share = 1e-3;

const Node* find_node(const Graph& graph, const QuantizedUnit& unit) {
  for (const Node* node : graph.nodes()) {
    const bool is_named = node->name.empty() ? node->output() && node->output()->name() == unit.node : node->name == unit.node;
    if (is_named) return node;
  }
  return nullptr;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double magnitude(const ValueStatistics& statistics) {
  return std::max(std::fabs(static_cast<double>(statistics.min)), std::fabs(static_cast<double>(statistics.max)));
}

// The magnitude that all but a share of the values stay below.
double quantile(const Histogram& histogram, double share) {
  std::vector<std::pair<double, std::int64_t>> bins;  // farther edge, count
  std::int64_t total = 0;
  for (std::size_t i = 0; i < histogram.counts.size(); ++i) {
    const double low = static_cast<double>(histogram.first + static_cast<std::int64_t>(i)) * histogram.width();
    bins.emplace_back(std::max(std::fabs(low), std::fabs(low + histogram.width())), histogram.counts[i]);
    total += histogram.counts[i];
  }
  std::ranges::sort(bins);
  double seen = 0;
  for (const auto& [edge, count] : bins) {
    seen += static_cast<double>(count);
    if (seen >= (1 - share) * static_cast<double>(total)) return edge;
  }
  return 0;
}

std::optional<Cause> weight_cause(const Weight& weight, const QuantizeRequest& request) {
  const Tensor& tensor = *weight.value->constant();
  if (!weight.channel_axis || tensor.size() == 0) return std::nullopt;
  const std::vector<float> values = tensor.to_floats();
  const auto channels = static_cast<std::size_t>(tensor.dim(static_cast<std::size_t>(*weight.channel_axis)));
  std::vector<double> largest(channels), squares(channels);
  for_each_channel_run(tensor.dims(), *weight.channel_axis, [&](std::int64_t c, std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = begin; i < begin + count; ++i) {
      const double value = std::fabs(static_cast<double>(values[static_cast<std::size_t>(i)]));
      largest[static_cast<std::size_t>(c)] = std::max(largest[static_cast<std::size_t>(c)], value);
      squares[static_cast<std::size_t>(c)] += value * value;
    }
  });
  if (request.granularity == Granularity::Kind::tensor) {
    const double middle = median(largest);
    const auto worst = std::ranges::max_element(largest);
    if (middle <= 0 || *worst < large_ratio * middle) return std::nullopt;
    return Cause{"weight outlier channel",
                 fmt::format("channel {} of '{}' spans {:.0f} times the median channel", worst - largest.begin(),
                             weight.value->name(), *worst / middle),
                 "granularity=channel, or equalize before"};
  }
  // Within a channel: the largest element over the root mean square.
  const double per_channel = static_cast<double>(values.size()) / static_cast<double>(channels);
  std::vector<double> peaks;
  for (std::size_t c = 0; c < channels; ++c)
    peaks.push_back(squares[c] > 0 ? largest[c] / std::sqrt(squares[c] / per_channel) : 0);
  const auto worst = std::ranges::max_element(peaks);
  if (*worst < large_ratio) return std::nullopt;
  return Cause{"weight outliers", fmt::format("the largest element of channel {} of '{}' is {:.0f} times its root mean square",
                                              worst - peaks.begin(), weight.value->name(), *worst),
               request.granularity == Granularity::Kind::block ? "method=mse or a smaller block" : "method=mse, or granularity=block"};
}

std::vector<Cause> input_causes(const Node& node, const Calibration& calibration) {
  std::vector<Cause> causes;
  const Value* input = node.input(0);
  const ValueStatistics* statistics = input ? calibration.find(*input) : nullptr;
  if (!statistics || statistics->count == 0) return causes;
  const double largest = magnitude(*statistics), usual = quantile(statistics->histogram, far_out_share);
  if (usual > 0 && largest > large_ratio * usual)
    causes.push_back({"activation outliers",
                      fmt::format("one in a thousand of '{}' lies between {:.3g} and {:.3g}", input->name(), usual, largest),
                      "calibration=mse or percentile; or smooth_quant before"});
  std::vector<double> channels;
  for (std::size_t c = 0; c < statistics->channel_max.size(); ++c)
    channels.push_back(std::max(std::fabs(static_cast<double>(statistics->channel_min[c])),
                                std::fabs(static_cast<double>(statistics->channel_max[c]))));
  if (!channels.empty()) {
    const double middle = median(channels);
    const auto worst = std::ranges::max_element(channels);
    if (middle > 0 && *worst > wide_concat * middle)
      causes.push_back({"activation outlier channel",
                        fmt::format("channel {} of '{}' reaches {:.0f} times the median channel", worst - channels.begin(),
                                    input->name(), *worst / middle),
                        node.is("MatMul") || node.is("Gemm") ? "smooth_quant before" : "equalize before"});
  }
  return causes;
}

// The Concat whose result the node reads, through what keeps ranges apart.
const Node* concat_before(const Node& node) {
  const Value* value = node.input(0);
  for (int i = 0; i < 6 && value && value->producer(); ++i) {
    const Node* producer = value->producer();
    if (producer->is("Concat")) return producer;
    const bool passes = producer->is("Relu") || producer->is("LeakyRelu") || producer->is("MaxPool") || producer->is("AveragePool") ||
                        producer->is("Reshape") || producer->is("Transpose") || producer->is("Flatten") || producer->is("Identity");
    if (!passes) return nullptr;
    value = producer->input(0);
  }
  return nullptr;
}

std::optional<Cause> concat_cause(const Node& node, const Calibration& calibration) {
  const Node* concat = node.is("Concat") ? &node : concat_before(node);
  if (!concat) return std::nullopt;
  const Value *smallest = nullptr, *largest = nullptr;
  double low = 0, high = 0;
  for (const Value* input : concat->inputs()) {
    const ValueStatistics* statistics = input ? calibration.find(*input) : nullptr;
    if (!statistics || statistics->count == 0) continue;
    const double range = magnitude(*statistics);
    if (range <= 0) continue;
    if (!smallest || range < low) smallest = input, low = range;
    if (!largest || range > high) largest = input, high = range;
  }
  if (!smallest || high < wide_concat * low) return std::nullopt;
  return Cause{"mixed ranges in a Concat",
               fmt::format("{} joins '{}' (up to {:.3g}) and '{}' (up to {:.3g})", concat->describe(), smallest->name(), low,
                           largest->name(), high),
               "leave the Concat and what reads it in float"};
}

// Records of the trial: what of the input is cut off, and whether int32 holds the bias.
std::vector<Cause> record_causes(const Node& node, const std::vector<Json>& records) {
  std::vector<Cause> causes;
  double input_scale = 0, weight_scale = 0;
  for (const Json& record : records) {
    const std::string kind = record.value("kind", "weight");
    if (kind == "weight") weight_scale = record.at("scale_min").get<double>();
    if (kind != "activation") continue;
    const std::string tensor = record.at("tensor");
    if (node.input(0) && tensor == node.input(0)->name()) input_scale = record.at("scale_min").get<double>();
    if (record.at("clipped").is_number() && record.at("clipped").get<double>() > much_clipped)
      causes.push_back({"clipping", fmt::format("{:.2f} % of '{}' lie outside the chosen range", 100 * record.at("clipped").get<double>(), tensor),
                        "calibration=minmax, or a higher percentile"});
  }
  constexpr double coarse_step = 0.5;  // e to the power of half a step is what results are off by
  if (node.is("Softmax") && input_scale > coarse_step)
    causes.push_back({"coarse Softmax input", fmt::format("'{}' comes in steps of {:.3g}", node.input(0)->name(), input_scale),
                      "leave it and what makes its input in float, or use 16-bit activations"});
  const Value* bias = node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm") ? node.input(2) : nullptr;
  if (bias && bias->constant() && input_scale * weight_scale > 0) {
    double largest = 0;
    for (const float value : bias->constant()->to_floats()) largest = std::max(largest, static_cast<double>(std::fabs(value)));
    if (largest / (input_scale * weight_scale) > 2147483647.0)
      causes.push_back({"bias overflow", fmt::format("'{}' reaches {:.3g}, an int32 at scale {:.2g} does not", bias->name(), largest, input_scale * weight_scale),
                        "leave the layer in float, or equalize before"});
  }
  return causes;
}

}  // namespace

CalibrationRequest diagnosis_request(const Model& model, const std::vector<QuantizedUnit>& units) {
  CalibrationRequest request;
  TypeInference types(model);
  types.run();
  const auto add = [&](const Value* value) {
    if (!value || value->constant() || !types.type(value).is_tensor() || !is_float(types.type(value).elem)) return;
    request.values.insert(calibration_key(*value));
  };
  for (const QuantizedUnit& unit : units) {
    const Node* node = find_node(model.graph, unit);
    if (!node) continue;
    add(node->input(0));
    if (const Node* concat = node->is("Concat") ? node : concat_before(*node))
      for (const Value* input : concat->inputs()) add(input);
    const Type& type = node->input(0) ? types.type(node->input(0)) : Type();
    if (!type.shape || type.shape->size() < 2) continue;
    const bool last = node->is("MatMul") || node->is("Gemm");
    request.channels[calibration_key(*node->input(0))] = last ? static_cast<std::int64_t>(type.shape->size()) - 1 : 1;
  }
  return request;
}

std::vector<Cause> diagnose(const Model& model, const QuantizedUnit& unit, const QuantizeRequest& request,
                            const Calibration& calibration, const std::vector<Json>& records) {
  std::vector<Cause> causes;
  const Node* node = find_node(model.graph, unit);
  if (!node) return causes;
  for (const Weight& weight : collect_weights(model, WeightKinds::all, Selector(""), "analyze", nullptr)) {
    if (std::ranges::find(unit.tensors, weight.value->name()) == unit.tensors.end()) continue;
    if (std::optional<Cause> cause = weight_cause(weight, request)) causes.push_back(std::move(*cause));
  }
  if (request.scheme != Scheme::weights) {
    for (Cause& cause : record_causes(*node, records)) causes.push_back(std::move(cause));
    for (Cause& cause : input_causes(*node, calibration)) causes.push_back(std::move(cause));
    if (std::optional<Cause> cause = concat_cause(*node, calibration)) causes.push_back(std::move(*cause));
  }
  return causes;
}

}  // namespace onnxpress
