#include "passes/quantize/static_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "graph/ops/gemm.h"
#include "passes/quantize/static_lookup.h"

namespace onnxpress {
namespace {

// Biases stay below this, so that adding the sum of products does not overflow either.
constexpr double largest_bias = 0x1p30;

// Whether both nodes read the constant as the same axes.
bool reads_alike(const Node& a, std::size_t i, const Node& b, std::size_t j) {
  if (a.op_type() != b.op_type() || i != j) return false;
  return !a.is("Gemm") || GemmAttrs::from(a).transpose_b == GemmAttrs::from(b).transpose_b;
}

// The scales, those of channels of zeros (any number would do for the weight) made the smallest of the
// others, so that the bias keeps its digits.
std::vector<float> scales_for_biases(const QuantizedTensor& quantized) {
  std::vector<float> scales = quantized.scale.to_floats();
  if (scales.size() < 2) return scales;
  std::vector<bool> is_zero(scales.size(), true);
  const std::vector<std::int64_t> codes = quantized.codes.to_ints();
  const std::vector<std::int64_t> zeros = quantized.zero_point.defined() ? quantized.zero_point.to_ints()
                                                                         : std::vector<std::int64_t>(scales.size(), 0);
  for_each_scale_run(quantized.codes.dims(), quantized.granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const auto g = static_cast<std::size_t>(group);
    for (std::int64_t i = begin; i < begin + count && is_zero[g]; ++i)
      is_zero[g] = codes[static_cast<std::size_t>(i)] == zeros[g];
  });
  float smallest = std::numeric_limits<float>::infinity();
  for (std::size_t g = 0; g < scales.size(); ++g)
    if (!is_zero[g]) smallest = std::min(smallest, scales[g]);
  for (std::size_t g = 0; g < scales.size(); ++g)
    if (is_zero[g] && std::isfinite(smallest)) scales[g] = smallest;
  return scales;
}

// The weight on other scales: groups whose scale stays keep their codes, others are rounded to nearest.
QuantizedTensor with_scales(const Tensor& tensor, const QuantizedType& type, const QuantizedTensor& quantized,
                            const std::vector<float>& scales) {
  WeightGrid grid = grid_of(quantized, type);
  const std::vector<float> old = quantized.scale.to_floats();
  for (std::size_t g = 0; g < scales.size(); ++g) grid.parameters[g].scale = scales[g];
  const std::vector<float> values = tensor.to_floats();
  const std::vector<std::int64_t> kept = quantized.codes.to_ints();
  std::vector<std::int32_t> codes(kept.begin(), kept.end());
  for_each_scale_run(tensor.dims(), grid.granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const auto g = static_cast<std::size_t>(group);
    if (scales[g] == old[g]) return;
    for (std::int64_t i = begin; i < begin + count; ++i)
      codes[static_cast<std::size_t>(i)] =
          static_cast<std::int32_t>(quantize(values[static_cast<std::size_t>(i)], grid.parameters[g], type));
  });
  return with_codes(tensor, grid, codes);
}

Granularity granularity_of(const Weight& weight, bool by_channel, const QuantizeRequest& request) {
  if (!by_channel) return Granularity::per_tensor();
  const std::size_t rank = weight.value->constant()->rank();
  if (request.granularity == Granularity::Kind::block && rank >= 2 && weight.input_axis)
    return Granularity::per_block(*weight.input_axis, request.block);
  // Integer kernels have one scale for the left factor, and for batches of matrices.
  if (weight.node->is("MatMul") && (weight.operand == 0 || rank != 2)) return Granularity::per_tensor();
  if (weight.node->is("Gemm") && weight.operand == 0) return Granularity::per_tensor();
  return weight.channel_axis ? Granularity::per_channel(*weight.channel_axis) : Granularity::per_tensor();
}

}  // namespace

std::vector<StaticWeight> static_weights(const Model& model, const StaticPlan& plan, const StaticTypes& kinds,
                                         const QuantizeRequest& request) {
  std::unordered_map<const Value*, Weight> known;
  for (const Weight& weight : collect_weights(model, WeightKinds::all, Selector(""), "quantize", nullptr))
    known.emplace(weight.value, weight);
  std::vector<StaticWeight> weights;
  std::unordered_map<const Value*, std::size_t> index;
  std::vector<bool> by_channel;
  for (std::size_t place = 0; place < plan.nodes.size(); ++place) {
    const PlannedNode& planned = plan.nodes[place];
    if (!planned.weights) continue;
    for (const std::size_t operand : planned.use.weights) {
      Value* value = planned.node->input(operand);
      if (!value || !value->constant()) continue;
      const auto [found, is_new] = index.emplace(value, weights.size());
      if (is_new) {
        const auto collected = known.find(value);
        Weight weight = collected != known.end() ? collected->second : Weight{value, planned.node, operand, std::nullopt, std::nullopt};
        weights.push_back({.weight = weight, .type = kinds.weight_of(planned.bits), .granularity = {}, .readers = {}, .rounded = {}});
        by_channel.push_back(kinds.weights_by_channel);
      }
      StaticWeight& weight = weights[found->second];
      weight.readers.push_back(place);
      if (kinds.weight_of(planned.bits).bits > weight.type.bits) weight.type = kinds.weight_of(planned.bits);
      if (!reads_alike(*weight.weight.node, weight.weight.operand, *planned.node, operand)) by_channel[found->second] = false;
    }
  }
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Value& value = *weights[i].weight.value;
    const bool only_looked_up = is_looked_up_as_codes(value, weights[i].type.storage) && weights[i].readers.size() == value.uses().size();
    weights[i].granularity = only_looked_up ? lookup_granularity(value, by_channel[i], weights[i].type.symmetric)
                                            : granularity_of(weights[i].weight, by_channel[i], request);
  }
  return weights;
}

namespace {

using GridOf = std::unordered_map<const Value*, const ActivationGrid*>;

GridOf grids_by_value(const StaticPlan& plan, const std::vector<ActivationGrid>& grids) {
  GridOf grid_of;
  for (const CodedValue& value : plan.values) grid_of.emplace(value.value, &grids[value.group]);
  return grid_of;
}

// What a product of codes stands for, but for the scale of its weight.
double unit_of(const PlannedNode& planned, const GridOf& grid_of) {
  double unit = planned.node->is("Gemm") ? GemmAttrs::from(*planned.node).alpha : 1.0;
  for (const std::size_t i : planned.use.data)
    if (const auto grid = grid_of.find(planned.node->input(i)); grid != grid_of.end())
      unit *= static_cast<double>(grid->second->parameters.scale);
  return unit;
}

// The least scale of the weight with which a bias of that type fits. ONNX Runtime makes int32 of a float16
// bias itself, and computes its scale and its codes in float16: both must be numbers that this holds well.
double least_scale(double bias, double unit, DType type) {
  constexpr double largest_half = 60000, least_half = 0x1p-18;
  if (type == DType::float16) return std::max(std::fabs(bias) / (unit * largest_half), least_half / unit);
  return std::fabs(bias) / (unit * largest_bias);
}

}  // namespace

std::map<std::size_t, std::string> half_bias_obstacles(const StaticPlan& plan, const std::vector<StaticWeight>& weights,
                                                       const std::vector<ActivationGrid>& grids, const StaticTypes& kinds) {
  constexpr double most_raised = 4;  // 2 of 8 bits
  std::map<std::size_t, std::string> obstacles;
  if (!kinds.target.quantizes_biases() || !kinds.activation.is_integer() || !is_integer(kinds.weight.storage)) return obstacles;
  const GridOf grid_of = grids_by_value(plan, grids);
  for (const StaticWeight& weight : weights) {
    if (!weight.rounded.quantized || weight.granularity.kind == Granularity::Kind::block) continue;
    const std::vector<float> scales = scales_for_biases(*weight.rounded.quantized);
    for (const std::size_t place : weight.readers) {
      const PlannedNode& planned = plan.nodes[place];
      if (!planned.on_codes || !planned.use.bias) continue;
      const Tensor& bias = *planned.node->input(*planned.use.bias)->constant();
      const double unit = std::fabs(unit_of(planned, grid_of));
      if (bias.dtype() != DType::float16 || unit <= 0) continue;
      const std::vector<float> values = bias.to_floats();
      for (std::size_t c = 0; c < values.size(); ++c)
        if (least_scale(static_cast<double>(values[c]), unit, bias.dtype()) > most_raised * static_cast<double>(scales[c % scales.size()]))
          obstacles.emplace(place, fmt::format("its bias '{}' is float16, in which ONNX Runtime does not get it as codes",
                                               planned.node->input(*planned.use.bias)->name()));
    }
  }
  return obstacles;
}

std::vector<StaticBias> static_biases(const StaticPlan& plan, std::vector<StaticWeight>& weights,
                                      const std::vector<ActivationGrid>& grids, const StaticTypes& kinds,
                                      std::vector<std::string>& notes) {
  std::vector<StaticBias> biases;
  if (!kinds.target.quantizes_biases() || !kinds.activation.is_integer() || !is_integer(kinds.weight.storage)) return biases;
  std::unordered_map<const Value*, StaticWeight*> weight_of;
  for (StaticWeight& weight : weights) weight_of.emplace(weight.weight.value, &weight);
  const GridOf grid_of = grids_by_value(plan, grids);

  // First all raises: a weight may be read by several nodes.
  for (const PlannedNode& planned : plan.nodes) {
    if (!planned.on_codes || !planned.use.bias || planned.use.weights.empty()) continue;
    StaticWeight& weight = *weight_of.at(planned.node->input(planned.use.weights[0]));
    if (!weight.rounded.quantized || weight.granularity.kind == Granularity::Kind::block) continue;
    const std::vector<float> bias = planned.node->input(*planned.use.bias)->constant()->to_floats();
    const std::vector<float> scales = scales_for_biases(*weight.rounded.quantized);
    const DType type = planned.node->input(*planned.use.bias)->constant()->dtype();
    const double unit = std::fabs(unit_of(planned, grid_of));
    std::vector<float> raised = scales;
    for (std::size_t c = 0; c < bias.size() && unit > 0; ++c) {
      float& scale = raised[c % raised.size()];  // groups of ConvTranspose share those of their channels
      if (std::isfinite(bias[c]))
        scale = std::max(scale, static_cast<float>(least_scale(static_cast<double>(bias[c]), unit, type)));
    }
    if (raised == weight.rounded.quantized->scale.to_floats()) continue;
    const Tensor& tensor = *weight.weight.value->constant();
    weight.rounded.quantized = with_scales(tensor, weight.type, *weight.rounded.quantized, raised);
    if (raised != scales)
      notes.push_back(fmt::format("{}: its bias does not fit into {} with the scales of '{}': some were raised",
                                  planned.node->describe(), type == DType::float16 ? "float16" : "32 bits",
                                  weight.weight.value->name()));
  }

  for (std::size_t place = 0; place < plan.nodes.size(); ++place) {
    const PlannedNode& planned = plan.nodes[place];
    if (!planned.on_codes || !planned.use.bias) continue;
    Value* value = planned.node->input(*planned.use.bias);
    if (value->constant()->dtype() != DType::float32) {
      notes.push_back(fmt::format("{}: its bias '{}' stays {}: its scale would be too small for it", planned.node->describe(),
                                  value->name(), name(value->constant()->dtype())));
      continue;
    }
    std::vector<float> weight_scales{1.0F};
    if (!planned.use.weights.empty()) {
      const StaticWeight& weight = *weight_of.at(planned.node->input(planned.use.weights[0]));
      if (!weight.rounded.quantized || weight.granularity.kind == Granularity::Kind::block) continue;
      weight_scales = weight.rounded.quantized->scale.to_floats();
    }
    const double unit = unit_of(planned, grid_of);
    const std::vector<float> bias = value->constant()->to_floats();
    std::vector<float> scales;
    for (const float scale : weight_scales) scales.push_back(static_cast<float>(unit * static_cast<double>(scale)));
    for (std::size_t c = scales.size(); scales.size() > 1 && c < bias.size(); ++c) scales.push_back(scales[c % weight_scales.size()]);
    const auto scale_at = [&](std::size_t c) { return scales[scales.size() > 1 ? c : 0]; };
    const bool fits = (scales.size() == 1 || scales.size() == bias.size()) &&
                      std::ranges::all_of(bias, [](float b) { return std::isfinite(b); }) &&
                      std::ranges::all_of(scales, [](float s) { return std::isnormal(s); });
    if (!fits) {
      notes.push_back(fmt::format("{}: its bias '{}' stays float32: no scale of int32 fits it", planned.node->describe(), value->name()));
      continue;
    }
    std::vector<std::int32_t> codes;
    double signal = 0, noise = 0;
    for (std::size_t c = 0; c < bias.size(); ++c) {
      const double code = std::nearbyint(static_cast<double>(bias[c]) / static_cast<double>(scale_at(c)));
      codes.push_back(static_cast<std::int32_t>(std::clamp<double>(code, std::numeric_limits<std::int32_t>::min(),
                                                                   std::numeric_limits<std::int32_t>::max())));
      const double error = static_cast<double>(codes.back()) * static_cast<double>(scale_at(c)) - static_cast<double>(bias[c]);
      signal += static_cast<double>(bias[c]) * static_cast<double>(bias[c]);
      noise += error * error;
    }
    const Dims scale_dims = scales.size() > 1 ? Dims{std::ssize(scales)} : Dims{};
    biases.push_back({.place = place,
                      .value = value,
                      .codes = Tensor::of<std::int32_t>(value->constant()->dims(), codes),
                      .scale = Tensor::of<float>(scale_dims, scales),
                      .snr_db = noise > 0 ? 10 * std::log10(signal / noise) : std::numeric_limits<double>::infinity()});
  }
  return biases;
}

}  // namespace onnxpress
