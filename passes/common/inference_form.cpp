#include "passes/common/inference_form.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/ops/batch_norm.h"
#include "graph/ops/constant.h"
#include "graph/ops/identity.h"

namespace onnxpress {
namespace {

bool reads_running_statistics(const Node& node) {
  for (std::size_t i = 1; i < node.output_count(); ++i)
    if (node.output(i) != nullptr && !node.output(i)->is_unused()) return true;
  return false;
}

bool change_batch_norm(Graph& graph, Node* node) {
  const BatchNormAttrs attrs = BatchNormAttrs::from(*node);
  if (!attrs.training || !attrs.per_channel || reads_running_statistics(*node)) return false;
  NodeSpec spec{.op_type = "BatchNormalization", .name = node->name, .inputs = {node->inputs().begin(), node->inputs().end()}};
  spec.attributes["epsilon"] = attrs.epsilon;
  spec.attributes["momentum"] = attrs.momentum;
  if (node->opset() < 7) spec.attributes["is_test"] = std::int64_t{1};
  Node* added = graph.add_node(std::move(spec), node);
  added->doc_string = node->doc_string;
  added->metadata = node->metadata;
  graph.replace_uses(node->output(), added->output());
  graph.remove(node);
  return true;
}

bool change_dropout(Graph& graph, Node* node) {
  Value* mode = node->input(2);
  if (is_inference_dropout(*node) || !constant_contents(mode)) return false;
  graph.set_node_input(node, 2, nullptr);
  if (!mode->is_unused() || &mode->graph() != &graph) return true;
  if (Node* maker = mode->producer())
    graph.remove(maker);
  else if (std::ranges::find(graph.inputs(), mode) == graph.inputs().end())
    graph.remove_initializer(mode);
  return true;
}

}  // namespace

std::string set_inference_form(Model& model) {
  std::size_t norms = 0, dropouts = 0;
  model.for_each_graph([&](Graph& graph) {
    for (Node* node : graph.nodes()) {
      if (node->is("BatchNormalization")) norms += change_batch_norm(graph, node);
      if (node->is("Dropout")) dropouts += change_dropout(graph, node);
    }
  });
  if (norms + dropouts == 0) return "";
  return fmt::format("was exported in training mode: {} BatchNormalization and {} Dropout are in inference form now", norms, dropouts);
}

}  // namespace onnxpress
