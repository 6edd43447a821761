// Graph::sort: Kahn's algorithm, the ready node that came first going first.
#include <functional>
#include <queue>

#include "graph/ir/graph.h"

namespace onnxpress {
namespace {

// The nodes of one graph by position, and for each the positions of the nodes that read its
// outputs, themselves or in their subgraphs; one entry per reading.
struct Dependencies {
  std::vector<Node*> nodes;
  std::vector<std::vector<std::size_t>> readers;
  std::vector<std::size_t> waiting_for;  // readings of values not yet produced
};

Dependencies dependencies_of(const Graph& graph) {
  Dependencies result{.nodes = graph.nodes(), .readers = {}, .waiting_for = {}};
  std::unordered_map<const Node*, std::size_t> position;
  for (std::size_t i = 0; i < result.nodes.size(); ++i) position[result.nodes[i]] = i;
  result.readers.resize(result.nodes.size());
  result.waiting_for.resize(result.nodes.size());
  for (std::size_t i = 0; i < result.nodes.size(); ++i) {
    const auto note = [&](Node* reader) {
      if (!reader) return;  // in a subgraph that no node holds yet
      result.readers[i].push_back(position.at(reader));
      ++result.waiting_for[position.at(reader)];
    };
    for (const Value* output : result.nodes[i]->outputs()) {
      if (!output) continue;
      for (const Use& use : output->uses()) note(graph.holder(use.node));
      for (const Graph* listing : output->output_of())
        if (listing != &graph) note(graph.holder(listing->owner()));
    }
  }
  return result;
}

// A node on a cycle, given that some nodes wait forever: each of them waits for another of them,
// so walking from reader to producer must come back.
const Node* on_cycle(const Dependencies& all) {
  const std::size_t none = all.nodes.size();
  std::vector<std::size_t> producer(all.nodes.size(), none);
  std::size_t current = none;
  for (std::size_t i = 0; i < all.nodes.size(); ++i) {
    if (all.waiting_for[i] == 0) continue;
    for (const std::size_t reader : all.readers[i]) producer[reader] = i;
    current = i;
  }
  std::vector<bool> visited(all.nodes.size());
  while (!visited[current]) {
    visited[current] = true;
    current = producer[current];
  }
  return all.nodes[current];
}

}  // namespace

void Graph::sort_nodes() {
  Dependencies all = dependencies_of(*this);
  std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> ready;
  for (std::size_t i = 0; i < all.nodes.size(); ++i)
    if (all.waiting_for[i] == 0) ready.push(i);
  std::vector<Node*> order;
  while (!ready.empty()) {
    const std::size_t first = ready.top();
    ready.pop();
    order.push_back(all.nodes[first]);
    for (const std::size_t reader : all.readers[first])
      if (--all.waiting_for[reader] == 0) ready.push(reader);
  }
  if (order.size() != all.nodes.size())
    fail("graph '{}' has a cycle through {}", name, on_cycle(all)->describe());
  for (Node* node : order) move_before(node, nullptr);
}

void Graph::sort() { for_each_graph([](Graph& graph) { graph.sort_nodes(); }); }

}  // namespace onnxpress
