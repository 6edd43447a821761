#include "passes/quantize/static_types.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "graph/base/error.h"
#include "graph/ops/quantize_linear.h"
#include "graph/ops/upgrade.h"
#include "passes/quantize/storage.h"

namespace onnxpress {
namespace {

// Clip takes integers from here on.
constexpr std::int64_t first_integer_clip_opset = 12;

bool is_signed_code(DType type) { return is_signed_integer(type); }

// Whether some floating-point value or constant has 16 bits: their scales too, from opset 19 on.
bool has_half(const Model& model) {
  bool found = false;
  const auto look = [&](const Value* value) {
    const DType type = value->constant() ? value->constant()->dtype() : value->type.elem;
    found |= is_float(type) && bits(type) == 16;
  };
  model.for_each_graph([&](const Graph& graph) {
    for (const Value* input : graph.inputs()) look(input);
    for (const Value* constant : graph.initializers()) look(constant);
  });
  return found;
}

DType weight_storage(int bits, bool symmetric, bool smallest) {
  if (bits <= 2 && smallest) return symmetric ? DType::int2 : DType::uint2;
  if (bits <= 4) return symmetric ? DType::int4 : DType::uint4;
  if (bits <= 8) return symmetric ? DType::int8 : DType::uint8;
  return symmetric ? DType::int16 : DType::uint16;
}

}  // namespace

std::int64_t ActivationType::min() const {
  return is_signed_code(storage) ? -(std::int64_t{1} << (bits - 1)) + (symmetric ? 1 : 0) : 0;
}

std::int64_t ActivationType::max() const {
  return is_signed_code(storage) ? (std::int64_t{1} << (bits - 1)) - 1 : (std::int64_t{1} << bits) - 1;
}

std::int64_t ActivationType::least_code() const {
  return is_signed_code(storage) ? -(std::int64_t{1} << (bits - 1)) : 0;
}

std::int64_t ActivationType::most_code() const { return least_code() + (std::int64_t{1} << bits) - 1; }

QuantizedType ActivationType::grid() const { return {bits, symmetric, storage}; }

ActivationType StaticTypes::activation_of(int bits) const {
  if (said_activation_type || bits == activation.bits) return activation;
  ActivationType type = activation;
  type.bits = bits;
  const bool is_signed = is_signed_code(activation.storage);
  type.storage = target.activation_type(bits);
  if (is_signed != is_signed_code(type.storage))
    type.storage = bits <= 8 ? (is_signed ? DType::int8 : DType::uint8) : (is_signed ? DType::int16 : DType::uint16);
  return type;
}

QuantizedType StaticTypes::weight_of(int bits) const {
  QuantizedType type = weight;
  if (bits == weight.bits) return type;
  type.bits = bits;
  if (!said_weight_type) type.storage = weight_storage(bits, weight.symmetric, smallest);
  type.bits = std::min(type.bits, onnxpress::bits(type.storage));
  return type;
}

StaticTypes choose_static_types(const Model& model, const QuantizeRequest& request) {
  StaticTypes types;
  types.target = request.target;
  types.smallest = !request.only_loadable;
  types.said_activation_type = request.activation_type.has_value();
  types.said_weight_type = request.weight_type.has_value();
  types.activation.bits = request.activation_bits;
  types.activation.storage = request.activation_type.value_or(request.target.activation_type(request.activation_bits));
  types.activation.bits = std::min(types.activation.bits, bits(types.activation.storage));
  types.activation.symmetric = request.symmetric_activations.value_or(request.target.symmetric_activations());

  types.weight.bits = request.weight_bits;
  types.weight.symmetric = request.symmetric;
  types.weight.storage =
      request.weight_type.value_or(weight_storage(request.weight_bits, request.symmetric, types.smallest));
  if (request.weight_type) {
    types.weight.symmetric = !is_integer(types.weight.storage) || is_signed_code(types.weight.storage);
    types.weight.bits = std::min(request.weight_bits, bits(types.weight.storage));
  }
  if (request.target.reduced_weight_range() && types.weight.bits == 8 && is_integer(types.weight.storage) &&
      bits(types.activation.storage) <= 8) {
    types.weight.bits = 7;
    types.notes.push_back(fmt::format("weights keep to 7 bits: {} sums pairs of 8-bit products in 16 bits, which saturate",
                                      request.target.name()));
  }

  types.weights_by_channel = request.granularity != Granularity::Kind::tensor;
  const bool half = has_half(model);
  std::vector<std::string> tried;
  for (const bool by_channel : {types.weights_by_channel, false}) {
    std::int64_t opset = std::max(first_quantize_opset(types.activation.storage, false, false),
                                  first_quantize_opset(types.weight.storage, by_channel, request.granularity == Granularity::Kind::block && by_channel));
    for (const BitsRule& rule : request.overrides) {
      if (rule.bits == 0) continue;
      opset = std::max(opset, first_quantize_opset(types.weight_of(rule.bits).storage, by_channel, false));
      if (rule.bits == 16) opset = std::max(opset, first_quantize_opset(types.activation_of(16).storage, false, false));
    }
    if (half) opset = std::max<std::int64_t>(opset, 19);
    if (types.activation.is_restricted()) opset = std::max<std::int64_t>(opset, first_integer_clip_opset);
    require(opset <= request.target.newest_opset(), "the types asked for need opset {}, and target {} loads up to {}",
            opset, request.target.name(), request.target.newest_opset());
    const std::vector<std::string> obstacles =
        opset > model.graph.opset() ? upgrade_obstacles(model, opset) : std::vector<std::string>{};
    if (obstacles.empty()) {
      types.opset = opset;
      types.weights_by_channel = by_channel;
      types.notes.insert(types.notes.end(), tried.begin(), tried.end());
      return types;
    }
    tried.push_back(fmt::format("{} weights{} need opset {}, which the model cannot reach: {}", name(types.weight.storage),
                                by_channel ? " per channel" : "", opset, obstacles.front()));
    if (!by_channel) break;
  }
  fail("no form of QuantizeLinear is within reach: {}", fmt::join(tried, "; "));
}

}  // namespace onnxpress
