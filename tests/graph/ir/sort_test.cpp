#include <doctest/doctest.h>

#include "graph/ir/model.h"
#include "graph/ir/parse.h"
#include "invariants.h"

namespace onnxpress {
namespace {

std::string order(const Graph& graph) {
  std::string names;
  for (const Node* node : graph.nodes()) names += node->output()->name();
  return names;
}

TEST_CASE("an order that is right stays, others change little") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x)
b = Relu(x)
c = Add(a, b)
d = Relu(x)
e = Add(c, c)
)");
  Graph& graph = model->graph;
  const auto node = [&](const char* name) { return graph.find(name)->producer(); };
  graph.sort();
  CHECK(order(graph) == "abcde");
  graph.move_before(node("e"), node("a"));
  CHECK_FALSE(Invariants::is_sorted(graph));
  graph.sort();
  CHECK(order(graph) == "abced");
  graph.move_before(node("c"), node("a"));
  graph.move_before(node("a"), nullptr);
  graph.sort();
  CHECK(order(graph) == "bdace");
  CHECK(Invariants::is_sorted(graph));
}

TEST_CASE("captured values are dependencies, and subgraphs are sorted too") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x)
b = Relu(x)
c = If(x) {else_branch=graph {
  output b
}, then_branch=graph {
  p = Relu(x)
  q = If(p) {then_branch=graph {
    r = Add(a, p)
    output r
  }}
  output q
}}
)");
  Graph& graph = model->graph;
  Node* c = graph.find("c")->producer();
  Graph& then_branch = *c->subgraphs().at(1);
  then_branch.move_before(then_branch.find("q")->producer(), then_branch.find("p")->producer());
  graph.move_before(c, graph.find("a")->producer());
  CHECK_FALSE(Invariants::is_sorted(graph));
  graph.sort();
  CHECK(order(graph) == "abc");
  CHECK(order(then_branch) == "pq");
  CHECK(Invariants::is_sorted(graph));
  // A cycle through a subgraph.
  graph.set_node_input(graph.find("a")->producer(), 0, graph.find("c"));
  CHECK_THROWS_AS(graph.sort(), Error);
}

TEST_CASE("cycles are named") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x) "first"
b = Relu(a) "second"
c = Relu(b) "third"
d = Relu(c) "fourth"
)");
  Graph& graph = model->graph;
  graph.name = "main";
  graph.set_node_input(graph.find("b")->producer(), 0, graph.find("c"));
  const std::string before = to_text(*model);
  CHECK_THROWS_WITH_AS(graph.sort(), "graph 'main' has a cycle through node 'third' (Relu)", Error);
  CHECK(to_text(*model) == before);
  graph.set_node_input(graph.find("b")->producer(), 0, graph.find("b"));
  CHECK_THROWS_WITH_AS(graph.sort(), "graph 'main' has a cycle through node 'second' (Relu)",
                       Error);
}

}  // namespace
}  // namespace onnxpress
