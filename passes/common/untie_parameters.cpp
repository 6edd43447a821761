#include "passes/common/untie_parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace onnxpress {
namespace {

const Tensor* float_constant(const Value* value) {
  const Tensor* tensor = value != nullptr && value->initializer() != nullptr ? value->constant() : nullptr;
  return tensor != nullptr && is_float(tensor->dtype()) ? tensor : nullptr;
}

// Puts an initializer where an Identity over one was.
void replace(Graph& graph, Node* identity) {
  Value* source = identity->input(0);
  const Tensor contents = *source->constant();
  const std::string name = identity->output()->name();
  Value* own = graph.add_initializer(graph.unique_name(name), contents);
  graph.replace_uses(identity->output(), own);
  graph.remove(identity);
  graph.rename(own, name);
  if (source->is_unused()) graph.remove_initializer(source);
}

}  // namespace

std::size_t untie_parameters(Model& model) {
  Graph& graph = model.graph;
  std::size_t added = 0;
  const auto outputs = graph.outputs();
  const auto is_output = [&](const Value* value) { return std::ranges::find(outputs, value) != outputs.end(); };
  // In order: an Identity over the result of another finds an initializer.
  for (Node* node : graph.nodes()) {
    if (!node->is("Identity") || float_constant(node->input(0)) == nullptr || is_output(node->output())) continue;
    replace(graph, node);
    ++added;
  }
  for (Node* node : graph.nodes()) {
    if (!node->is("BatchNormalization")) continue;
    for (std::size_t index = 1; index < std::min<std::size_t>(node->input_count(), 5); ++index) {
      const Value* value = node->input(index);
      const Tensor* contents = float_constant(value);
      if (contents == nullptr || value->uses().size() < 2) continue;
      graph.set_node_input(node, index, graph.add_initializer(graph.unique_name(value->name()), *contents));
      ++added;
    }
  }
  return added;
}

bool take_trained(Model& model, const Model& trained) {
  const std::unique_ptr<Model> start = model.clone();
  untie_parameters(*start);
  std::map<std::string, Tensor> differing;
  for (const Value* value : start->graph.initializers()) {
    const Value* after = trained.graph.find(value->name());
    if (value->constant() == nullptr || after == nullptr || after->constant() == nullptr) continue;
    if (!value->constant()->equals(*after->constant())) differing.emplace(value->name(), *after->constant());
  }
  if (differing.empty()) return false;
  untie_parameters(model);
  for (const auto& [name, tensor] : differing) model.graph.set_initializer(model.graph.find(name), tensor);
  return true;
}

std::string untied_note(std::size_t count) {
  return fmt::format("{} parameters that were stored once because they were equal are trained apart", count);
}

}  // namespace onnxpress
