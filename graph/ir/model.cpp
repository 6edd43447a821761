#include "graph/ir/model.h"

#include <algorithm>
#include <array>
#include <utility>

namespace onnxpress {
namespace {

// Where operators, of whatever domain, take quantized weights and biases.
struct WeightInput {
  std::string_view op_type;
  std::size_t index;
};
constexpr std::array<WeightInput, 18> kIntegerWeights{{{"DequantizeLinear", 0},
                                                       {"QLinearConv", 3},
                                                       {"QLinearConv", 8},
                                                       {"QLinearMatMul", 0},
                                                       {"QLinearMatMul", 3},
                                                       {"ConvInteger", 1},
                                                       {"MatMulInteger", 0},
                                                       {"MatMulInteger", 1},
                                                       {"QGemm", 3},
                                                       {"QGemm", 6},
                                                       {"QLinearAdd", 0},
                                                       {"QLinearAdd", 3},
                                                       {"QLinearMul", 0},
                                                       {"QLinearMul", 3},
                                                       {"MatMulIntegerToFloat", 1},
                                                       {"DynamicQuantizeMatMul", 1},
                                                       {"DynamicQuantizeLSTM", 1},
                                                       {"DynamicQuantizeLSTM", 2}}};

bool is_integer_weight(const Value& value, DType type) {
  return std::ranges::any_of(value.uses(), [type](const Use& use) {
    // A table of wider integers is not one of codes.
    if (use.node->is("Gather") && use.index == 0) return bits(type) <= 8;
    return std::ranges::any_of(kIntegerWeights, [&](const WeightInput& weight) {
      return use.index == weight.index && use.node->op_type() == weight.op_type;
    });
  });
}

// What a Constant node holds as a tensor, or nullptr.
const Tensor* constant_node_tensor(const Node& node) {
  const Attribute* attribute = node.is("Constant") ? node.attribute("value") : nullptr;
  const auto* held = attribute ? std::get_if<NamedTensor>(&attribute->value) : nullptr;
  return held ? &held->tensor : nullptr;
}

}  // namespace

bool is_parameter(const Value& constant, DType type) {
  return is_float(type) || (is_integer(type) && is_integer_weight(constant, type));
}

namespace {

std::int64_t parameters_in(const Graph& graph) {
  std::int64_t count = 0;
  for (const Value* value : graph.initializers()) {
    const Initializer& held = *value->initializer();
    const Tensor& stored = held.sparse ? held.sparse->values.tensor : held.tensor;
    if (is_parameter(*value, stored.dtype())) count += stored.size();
  }
  for (const Node* node : graph.nodes()) {
    const Tensor* tensor = constant_node_tensor(*node);
    if (tensor && node->output() && is_parameter(*node->output(), tensor->dtype()))
      count += tensor->size();
  }
  return count;
}

}  // namespace

const Function* Model::function(const Node& node) const {
  const auto found = std::ranges::find_if(functions, [&](const auto& function) {
    return node.is(function->name, function->domain) && node.overload() == function->overload;
  });
  return found == functions.end() ? nullptr : found->get();
}

void Model::for_each_graph(const std::function<void(Graph&)>& fn) {
  graph.for_each_graph(fn);
  for (const auto& function : functions) function->body.for_each_graph(fn);
}

void Model::for_each_graph(const std::function<void(const Graph&)>& fn) const {
  std::as_const(graph).for_each_graph(fn);
  for (const auto& function : functions) std::as_const(function->body).for_each_graph(fn);
}

std::vector<Value*> Model::required_inputs() const {
  std::vector<Value*> required;
  for (Value* input : graph.inputs())
    if (!input->initializer()) required.push_back(input);
  return required;
}

std::int64_t parameter_count(const Model& model) {
  std::int64_t count = 0;
  model.for_each_graph([&](const Graph& graph) { count += parameters_in(graph); });
  return count;
}

}  // namespace onnxpress
