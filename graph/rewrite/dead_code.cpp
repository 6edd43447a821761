#include <algorithm>

#include "graph/rewrite/pattern.h"

namespace onnxpress {
namespace {

bool is_unread(const Node& node) {
  const std::vector<Value*> outputs = node.outputs();
  return std::ranges::any_of(outputs, [](const Value* output) { return output != nullptr; }) &&
         std::ranges::all_of(outputs,
                             [](const Value* output) { return !output || output->is_unused(); });
}

// Readers come after what they read, so one walk from the end sees every node that becomes unread.
void remove_unread_nodes(Graph& graph, RemovedCounts& counts) {
  std::vector<Node*> nodes = graph.nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    if (is_unread(**node)) {
      graph.remove(*node);
      ++counts.nodes;
      continue;
    }
    for (Graph* nested : (*node)->subgraphs()) remove_unread_nodes(*nested, counts);
  }
}

}  // namespace

RemovedCounts remove_unused(Graph& graph) {
  RemovedCounts counts;
  remove_unread_nodes(graph, counts);
  graph.for_each_graph([&](Graph& each) {
    for (Value* value : each.initializers())
      if (value->is_constant() && value->is_unused()) {
        each.remove_initializer(value);
        ++counts.initializers;
      }
  });
  return counts;
}

}  // namespace onnxpress
