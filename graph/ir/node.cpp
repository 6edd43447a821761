#include <unordered_set>

#include "graph/ir/graph.h"

namespace onnxpress {

Node::~Node() = default;

std::int64_t Node::opset() const { return graph_->opset(domain_); }

std::vector<Value*> Node::outputs() const {
  std::vector<Value*> values;
  values.reserve(outputs_.size());
  for (const auto& output : outputs_) values.push_back(output.get());
  return values;
}

const Attribute* Node::attribute(std::string_view wanted) const {
  const auto found = attributes_.find(wanted);
  return found == attributes_.end() ? nullptr : &found->second;
}

std::vector<Graph*> Node::subgraphs() const {
  std::vector<Graph*> graphs;
  for (const auto& [key, attribute] : attributes_)
    for (Graph* graph : attribute.subgraphs()) graphs.push_back(graph);
  return graphs;
}

std::vector<Value*> Node::captured() const {
  std::vector<Value*> values;
  std::unordered_set<const Value*> seen;
  for (const Graph* subgraph : subgraphs()) {
    const auto note = [&](Value* value) {
      if (value && !value->graph().is_within(*subgraph) && seen.insert(value).second)
        values.push_back(value);
    };
    subgraph->for_each_graph([&](const Graph& graph) {
      for (const Node* node : graph.nodes())
        for (Value* input : node->inputs()) note(input);
      for (Value* output : graph.outputs()) note(output);
    });
  }
  return values;
}

std::string Node::describe() const {
  const std::string type = domain_.empty() ? op_type_ : domain_ + '.' + op_type_;
  if (!name.empty()) return fmt::format("node '{}' ({})", name, type);
  for (const auto& output : outputs_)
    if (output) return fmt::format("node of '{}' ({})", output->name(), type);
  return fmt::format("node ({})", type);
}

}  // namespace onnxpress
