// Which initializers of a model are its parameters.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string_view>

#include "graph/exec/trainer.h"

namespace onnxpress {
namespace {

// Inputs that are parameters by what the operator is, whatever their size; nothing for operators
// that have none.
const std::map<std::string_view, std::set<std::size_t>>& parameter_inputs() {
  static const std::map<std::string_view, std::set<std::size_t>> inputs = {
      {"Conv", {1, 2}},
      {"ConvTranspose", {1, 2}},
      {"Gemm", {0, 1, 2}},
      {"MatMul", {0, 1}},
      {"PRelu", {1}},
      {"BatchNormalization", {1, 2}},
      {"InstanceNormalization", {1, 2}},
      {"LayerNormalization", {1, 2}},
      {"RMSNormalization", {1}},
      {"GroupNormalization", {1, 2}},
      {"LSTM", {1, 2, 3, 5, 6, 7}},
      {"GRU", {1, 2, 3, 5}},
      {"RNN", {1, 2, 3, 5}},
      {"Gather", {0}},
  };
  return inputs;
}

// Inputs that say how, not what: bounds, fillings, scales, statistics.
bool is_setting(const Node& node, std::size_t index) {
  static const std::map<std::string_view, std::set<std::size_t>> settings = {
      {"BatchNormalization", {3, 4}}, {"Clip", {1, 2}},         {"Pad", {2}},
      {"Resize", {1, 2}},             {"Upsample", {1}},        {"Dropout", {1}},
      {"QuantizeLinear", {1, 2}},     {"DequantizeLinear", {0, 1, 2}},
      {"Pow", {1}},                   {"OneHot", {2}},          {"Range", {0, 1, 2}},
      {"Where", {0}},                 {"ConstantOfShape", {0}},
  };
  const auto found = settings.find(node.op_type());
  return found != settings.end() && found->second.contains(index);
}

bool is_trained_through(const Use& use, std::int64_t elements, std::int64_t least_elements) {
  const Node& node = *use.node;
  if (is_setting(node, use.index)) return false;
  const auto found = parameter_inputs().find(node.op_type());
  if (found != parameter_inputs().end()) return found->second.contains(use.index);
  return elements >= least_elements;
}

// Whether all numbers are finite and above `bound`: float32, the usual type, is not copied for it.
bool are_above(const Tensor& tensor, float bound) {
  const Tensor wide = tensor.dtype() == DType::float32 ? tensor : tensor.cast(DType::float32);
  return std::ranges::all_of(wide.data<float>(), [bound](float value) { return value > bound && std::isfinite(value); });
}

bool only_adds(const Value& value) {
  return std::ranges::all_of(value.uses(), [](const Use& use) { return use.node->is("Add") || use.node->is("Sub") || use.node->is("Where"); });
}

std::vector<std::string> parameters(const Model& model, std::int64_t least_elements) {
  std::vector<std::string> names;
  for (const Value* value : model.graph.initializers()) {
    const Tensor* tensor = value->constant();
    if (tensor == nullptr || !is_float(tensor->dtype()) || tensor->size() == 0) continue;
    const bool is_read = std::ranges::any_of(value->uses(), [&](const Use& use) {
      return is_trained_through(use, tensor->size(), least_elements);
    });
    if (!is_read) continue;
    // What training never makes of a weight: numbers that mask what they are added to, infinities and NaN.
    constexpr float masking = -9999;
    if (are_above(*tensor, only_adds(*value) ? masking : -std::numeric_limits<float>::infinity())) names.push_back(value->name());
  }
  return names;
}

}  // namespace

std::vector<std::string> trainable_parameters(const Model& model) { return parameters(model, 2); }

std::vector<std::string> selectable_parameters(const Model& model) { return parameters(model, 1); }

std::size_t constant_node_weights(const Model& model) {
  std::size_t count = 0;
  for (const Node* node : model.graph.nodes()) {
    const Value* made = node->is("Constant") ? node->output(0) : nullptr;
    const Attribute* attribute = made ? node->attribute("value") : nullptr;
    const auto* held = attribute ? std::get_if<NamedTensor>(&attribute->value) : nullptr;
    if (held == nullptr || !is_float(held->tensor.dtype()) || held->tensor.size() < 2) continue;
    count += std::ranges::any_of(made->uses(), [&](const Use& use) {
      return parameter_inputs().contains(use.node->op_type()) && is_trained_through(use, held->tensor.size(), 2);
    });
  }
  return count;
}

std::set<std::string> initializers_before(const Model& model, const std::vector<std::string>& values) {
  std::set<std::string> found;
  std::set<const Value*> seen;
  std::vector<const Value*> pending;
  for (const std::string& name : values) pending.push_back(model.graph.find(name));
  while (!pending.empty()) {
    const Value* value = pending.back();
    pending.pop_back();
    if (value == nullptr || !seen.insert(value).second) continue;
    if (value->initializer()) found.insert(value->name());
    const Node* node = value->producer();
    if (node == nullptr) continue;
    for (const Value* input : node->inputs()) pending.push_back(input);
    for (const Graph* nested : node->subgraphs())
      nested->for_each_graph([&](const Graph& graph) {
        for (const Node* inner : graph.nodes())
          for (const Value* input : inner->inputs()) pending.push_back(input);
        for (const Value* output : graph.outputs()) pending.push_back(output);
      });
  }
  return found;
}

}  // namespace onnxpress
