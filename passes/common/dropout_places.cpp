#include "passes/common/dropout_places.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_set>

namespace onnxpress {
namespace {

bool picks(const SelectedNumber::Rule& rule, const Value& value) {
  if (value.producer() != nullptr) return rule.selector.matches(*value.producer(), value);
  constexpr std::string_view prefix = "tensor:";
  const std::string_view glob = std::string_view(rule.text).starts_with(prefix)
                                    ? std::string_view(rule.text).substr(prefix.size())
                                    : std::string_view(rule.text);
  return glob_match(glob, value.name());
}

}  // namespace

std::map<std::string, double> dropout_places(const Model& model, const SelectedNumber& ratios,
                                             const std::vector<std::string>& trained) {
  std::map<std::string, double> places;
  const Graph& graph = model.graph;
  if (ratios.general() > 0) {
    const std::set<std::string> names(trained.begin(), trained.end());
    const auto is_trained = [&](const Value* value) { return value != nullptr && names.contains(value->name()); };
    std::unordered_set<const Value*> behind;  // values that depend on a trained parameter
    for (const Node* node : graph.nodes()) {
      const auto inputs = node->inputs();
      const bool is_product = node->is("Gemm") || node->is("MatMul");
      if (is_product && is_trained(node->input(1)) && behind.contains(node->input(0)) &&
          !node->input(0)->producer()->is("Dropout"))
        places[node->input(0)->name()] = ratios.general();
      const bool depends = std::ranges::any_of(inputs, [&](const Value* input) {
        return is_trained(input) || (input != nullptr && behind.contains(input));
      });
      if (!depends) continue;
      for (const Value* output : node->outputs())
        if (output != nullptr) behind.insert(output);
    }
  }
  const auto apply = [&](const Value* value) {
    for (const SelectedNumber::Rule& rule : ratios.rules())
      if (picks(rule, *value)) places[value->name()] = rule.number;
  };
  for (const Value* input : model.required_inputs()) apply(input);
  for (const Node* node : graph.nodes())
    for (const Value* output : node->outputs())
      if (output != nullptr) apply(output);
  std::erase_if(places, [](const auto& place) { return place.second == 0; });
  return places;
}

}  // namespace onnxpress
