#include "passes/common/inference_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "graph/ops/batch_norm.h"
#include "graph/ops/constant.h"
#include "graph/ops/identity.h"
#include "graph/rewrite/inline.h"

namespace onnxpress {
namespace {

bool reads_running_statistics(const Node& node) {
  for (std::size_t i = 1; i < node.output_count(); ++i)
    if (node.output(i) != nullptr && !node.output(i)->is_unused()) return true;
  return false;
}

// In the body of a function attributes may be left to its calls: these are not judged there.
bool is_batch_norm_in_training(const Node& node) {
  const auto is_open = [](const auto& entry) { return !entry.second.ref.empty(); };
  return node.is("BatchNormalization") && std::ranges::none_of(node.attributes(), is_open) && BatchNormAttrs::from(node).training;
}

bool change_batch_norm(Graph& graph, Node* node) {
  if (!is_batch_norm_in_training(*node)) return false;
  const BatchNormAttrs attrs = BatchNormAttrs::from(*node);
  if (!attrs.per_channel || reads_running_statistics(*node)) return false;
  NodeSpec spec{.op_type = "BatchNormalization", .name = node->name, .inputs = {node->inputs().begin(), node->inputs().end()}};
  spec.attributes["epsilon"] = attrs.epsilon;
  spec.attributes["momentum"] = attrs.momentum;
  if (node->opset() < 7) spec.attributes["is_test"] = std::int64_t{1};
  const std::string name = node->output()->name();
  Node* added = graph.add_node(std::move(spec), node);
  added->doc_string = node->doc_string;
  added->metadata = node->metadata;
  graph.replace_uses(node->output(), added->output());
  graph.remove(node);
  if (added->output()->name() != name) graph.rename(added->output(), name);
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

void require_no_training(const Model& model) {
  model.for_each_graph([](const Graph& graph) {
    for (const Node* node : graph.nodes()) {
      if (!is_batch_norm_in_training(*node)) continue;
      fail("{} is in training mode{} and depends on the other samples of a batch: export the model for inference (PyTorch: model.eval()); "
           "training then has statistics of its batches",
           node->describe(), reads_running_statistics(*node) ? " (its running statistics are read or outputs)" : "");
    }
  });
}

}  // namespace

std::string set_inference_form(Model& model) {
  std::size_t norms = 0, dropouts = 0;
  model.for_each_graph([&](Graph& graph) {
    for (Node* node : graph.nodes()) {
      if (node->is("Dropout"))
        dropouts += change_dropout(graph, node);
      else
        norms += change_batch_norm(graph, node);
    }
  });
  if (norms + dropouts == 0) return "";
  const std::string parts = norms == 0      ? fmt::format("{} Dropout", dropouts)
                            : dropouts == 0 ? fmt::format("{} BatchNormalization", norms)
                                            : fmt::format("{} BatchNormalization and {} Dropout", norms, dropouts);
  return fmt::format("was exported in training mode: {} put into inference form", parts);
}

void require_inference_form(const Model& model) {
  if (!model.functions.empty()) {
    const std::unique_ptr<Model> inlined = model.clone();
    inline_functions(*inlined);
    require_no_training(*inlined);
  } else {
    require_no_training(model);
  }
}

}  // namespace onnxpress
