#include "passes/train/regressor.h"

#include <cmath>

#include "graph/base/random.h"

namespace onnxpress {
namespace {

Tensor drawn(DType type, Dims dims, double deviation, std::uint64_t seed) {
  Random random(seed);
  Tensor weights(DType::float64, std::move(dims));
  for (double& weight : weights.mutable_data<double>()) weight = deviation * random.normal();
  return weights.cast(type);
}

}  // namespace

std::size_t channel_axis(const Value& value) {
  const std::size_t rank = value.type.shape ? value.type.shape->size() : 0;
  require(rank >= 2, "'{}': expected [samples, channels, ...], found {}", value.name(), to_string(value.type));
  for (const Node* node = value.producer(); node != nullptr;) {
    if (node->is("Conv") || node->is("ConvTranspose") || node->is("BatchNormalization") ||
        node->is("InstanceNormalization") || node->op_type().ends_with("Pool"))
      return 1;
    if (node->is("MatMul") || node->is("Gemm") || node->is("LayerNormalization") || node->is("Gather") ||
        node->is("Transpose") || node->is("Reshape"))
      return rank - 1;
    const Value* before = nullptr;
    for (const Value* input : node->inputs())
      if (input != nullptr && !input->is_constant() && before == nullptr) before = input;
    node = before != nullptr ? before->producer() : nullptr;
  }
  return rank > 3 ? 1 : rank - 1;
}

Regressor add_regressor(Model& model, Value* value, std::int64_t channels, std::uint64_t seed) {
  Graph& graph = model.graph;
  const std::size_t axis = channel_axis(*value), rank = value->type.shape->size();
  const Dim& width = (*value->type.shape)[axis];
  require(width.is_known(), "'{}': expected a known number of channels, found {}", value->name(),
          to_string(value->type));
  const std::int64_t from = width.value();
  const bool is_convolution = axis == 1 && rank > 2;
  Dims dims = is_convolution ? Dims{channels, from} : Dims{from, channels};
  if (is_convolution) dims.resize(rank, 1);
  const DType type = value->type.elem;
  const std::string name = value->name() + "_regressor";
  Value* weight = graph.add_initializer(graph.unique_name(name + "_weight"),
                                        drawn(type, dims, 1 / std::sqrt(static_cast<double>(from)), seed));
  Value* bias = graph.add_initializer(graph.unique_name(name + "_bias"), Tensor(type, {channels}));
  Regressor regressor{.parameters = {weight->name(), bias->name()}};
  if (is_convolution) {
    regressor.value = graph.add_node({.op_type = "Conv", .name = name, .inputs = {value, weight, bias}})->output();
  } else {
    Value* product = graph.add_node({.op_type = "MatMul", .name = name, .inputs = {value, weight}})->output();
    regressor.value = graph.add_node({.op_type = "Add", .inputs = {product, bias}})->output();
  }
  return regressor;
}

}  // namespace onnxpress
