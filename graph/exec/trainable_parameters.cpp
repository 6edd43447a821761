// Which initializers of a model are its parameters.
#include <algorithm>
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

bool is_trained_through(const Use& use, std::int64_t elements) {
  const Node& node = *use.node;
  if (is_setting(node, use.index)) return false;
  const auto found = parameter_inputs().find(node.op_type());
  if (found != parameter_inputs().end()) return found->second.contains(use.index);
  return elements > 1;
}

}  // namespace

std::vector<std::string> trainable_parameters(const Model& model) {
  std::vector<std::string> names;
  for (const Value* value : model.graph.initializers()) {
    const Tensor* tensor = value->constant();
    if (tensor == nullptr || !is_float(tensor->dtype()) || tensor->size() == 0) continue;
    const bool is_read = std::ranges::any_of(value->uses(), [&](const Use& use) {
      return is_trained_through(use, tensor->size());
    });
    if (is_read) names.push_back(value->name());
  }
  return names;
}

}  // namespace onnxpress
