#include "graph/ir/graph.h"

namespace onnxpress {

Tensor Initializer::dense() const { return sparse ? sparse->dense() : tensor; }

Initializer Initializer::clone() const {
  return {.tensor = tensor,
          .sparse = sparse ? std::make_unique<SparseTensor>(*sparse) : nullptr,
          .doc_string = doc_string,
          .metadata = metadata,
          .unknown_fields = unknown_fields};
}

Graph::Graph(const OpsetImports* opsets) : opsets_(opsets) {}

Graph::Graph(Graph* parent) : parent_(parent), opsets_(parent->opsets_) {}

Graph::~Graph() {
  drop_edges(*this);
  // Nested graphs report to the name counts of the root, so they go first.
  nodes_.clear();
  if (!parent_) return;
  for (const auto& [known, value] : by_name_) {
    const auto count = root()->names_in_tree_.find(known);
    if (--count->second == 0) root()->names_in_tree_.erase(count);
  }
}

// Forgets all edges of this graph and those nested in it. Values of `dying` are left alone, since
// they go with it.
void Graph::drop_edges(const Graph& dying) {
  for (const auto& node : nodes_) {
    for (std::size_t i = 0; i < node->inputs_.size(); ++i) {
      const Value* value = node->inputs_[i];
      if (value && !value->graph_->is_within(dying)) drop_use(node.get(), i);
    }
    node->inputs_.clear();
    for (Graph* subgraph : node->subgraphs()) subgraph->drop_edges(dying);
  }
  for (Value* value : outputs_)
    if (!value->graph_->is_within(dying)) drop_listing(value);
  outputs_.clear();
}

std::int64_t Graph::opset(std::string_view domain) const {
  const auto found = opsets_->find(domain == "ai.onnx" ? std::string_view() : domain);
  return found == opsets_->end() ? 0 : found->second;
}

std::vector<Value*> Graph::initializers() const {
  std::vector<Value*> values;
  for (const auto& value : owned_)
    if (value->initializer_) values.push_back(value.get());
  return values;
}

std::vector<Node*> Graph::nodes() const {
  std::vector<Node*> nodes;
  nodes.reserve(nodes_.size());
  for (const auto& node : nodes_) nodes.push_back(node.get());
  return nodes;
}

Value* Graph::find(std::string_view wanted) const {
  const auto found = by_name_.find(wanted);
  return found == by_name_.end() ? nullptr : found->second;
}

Value* Graph::find_visible(std::string_view wanted) const {
  for (const Graph* graph = this; graph; graph = graph->parent_)
    if (Value* value = graph->find(wanted)) return value;
  return nullptr;
}

bool Graph::is_within(const Graph& outer) const {
  const Graph* graph = this;
  while (graph && graph != &outer) graph = graph->parent_;
  return graph != nullptr;
}

Node* Graph::holder(Node* node) const {
  while (node && node->graph_ != this) node = node->graph_->owner_;
  return node;
}

std::string Graph::unique_name(std::string_view hint) const {
  const NameMap<int>& taken = root()->names_in_tree_;
  const std::string_view stem = hint.empty() ? "value" : hint;
  const auto numbered = [&](std::int64_t n) { return fmt::format("{}_{}", stem, n); };
  if (!taken.contains(stem)) return std::string(stem);
  // Doubling, then halving: a logarithmic number of looks where a pass makes thousands of values.
  std::int64_t free = 1;
  while (taken.contains(numbered(free))) free *= 2;
  std::int64_t used = free / 2;
  while (free - used > 1) {
    const std::int64_t middle = used + (free - used) / 2;
    (taken.contains(numbered(middle)) ? used : free) = middle;
  }
  return numbered(free);
}

void Graph::for_each_graph(const std::function<void(Graph&)>& fn) {
  fn(*this);
  for (const Node* node : nodes())
    for (Graph* subgraph : node->subgraphs()) subgraph->for_each_graph(fn);
}

void Graph::for_each_graph(const std::function<void(const Graph&)>& fn) const {
  fn(*this);
  for (const auto& node : nodes_)
    for (const Graph* subgraph : node->subgraphs()) subgraph->for_each_graph(fn);
}

Graph* Graph::root() {
  Graph* graph = this;
  while (graph->parent_) graph = graph->parent_;
  return graph;
}

const Graph* Graph::root() const {
  const Graph* graph = this;
  while (graph->parent_) graph = graph->parent_;
  return graph;
}

}  // namespace onnxpress
