#include "graph/ir/clone.h"

#include <doctest/doctest.h>

#include "graph/ir/model.h"
#include "graph/ir/parse.h"
#include "invariants.h"

namespace onnxpress {
namespace {

const char* const kText = R"(model ir=8 opset=17 local=1
metadata "key" = "value"
input x: float32[n]
input d: float32[1] = {2}
initializer w: float32[9] = random(3)
initializer s = sparse[4](float32[1]{5}, int64[1]{2})
a, _ = Pair(x, _, w) {t=float32[2]{1,2}} "pair"
y = If(a) {else_branch=graph {
  initializer k: float32[1] = {1}
  e = Add(k, a)
  output e
}, then_branch=graph {
  t = Add(w, x)
  u = If(t) {then_branch=graph {
    v = Add(t, a)
    output v
  }}
  output u
}} "choice"
output y: float32[n]
function local.F(alpha, beta=2.0) opset=17 {
  input v
  r = Elu(v) {alpha=@alpha(float)}
  output r
}
)";

TEST_CASE("a cloned model is the same and apart") {
  auto model = parse_model(kText);
  model->graph.find("x")->doc_string = "an input";
  model->graph.find("a")->metadata = {{"k", "v"}};
  model->graph.find("y")->producer()->unknown_fields = "\x7a\x01\x00";
  model->producer_name = "tests";
  auto copy = model->clone();
  CHECK(to_text(*copy) == to_text(*model));
  CHECK(structural_hash(*copy, true) == structural_hash(*model, true));
  const Tensor& weight = *model->graph.find("w")->constant();
  CHECK(copy->graph.find("w")->constant()->shares_storage_with(weight));
  Invariants::check(copy->graph);
  Invariants::check(copy->functions[0]->body);
  const std::string before = to_text(*copy);
  model.reset();
  CHECK(to_text(*copy) == before);
  CHECK(copy->graph.find("x")->uses().size() == 2);
}

TEST_CASE("a graph out of order is cloned as it is") {
  const auto model = parse_model(kText);
  Graph& graph = model->graph;
  graph.move_before(graph.find("y")->producer(), graph.find("a")->producer());
  const auto copy = model->clone();
  CHECK(to_text(*copy) == to_text(*model));
  Invariants::check(copy->graph);
  for (Value* value : copy->graph.find("y")->producer()->captured())
    CHECK(&value->graph() == &copy->graph);
}

TEST_CASE("cloned nodes get free names and mapped inputs") {
  const auto model = parse_model(kText);
  Graph& graph = model->graph;
  ValueMap map{{graph.find("a"), graph.find("x")}};
  Node* choice = graph.find("y")->producer();
  Node* copy = clone_node(*choice, graph, map, choice);
  CHECK(copy->output()->name() == "y_1");
  CHECK(map.at(graph.find("y")) == copy->output());
  CHECK(copy->name == "choice");
  CHECK(copy->input(0) == graph.find("x"));
  CHECK(copy->captured() == std::vector<Value*>{graph.find("x"), graph.find("w")});
  CHECK(graph.nodes()[1] == copy);
  Invariants::check(graph);

  Node* pair = clone_node(*graph.find("a")->producer(), graph, map);
  CHECK(pair->output_count() == 2);
  CHECK_FALSE(pair->output(1));
  CHECK(pair->output()->name() == "a_1");
  Invariants::check(graph);
}

TEST_CASE("names made for a clone do not collide with each other") {
  const auto source = parse_model("model ir=8 opset=17\ninput x\na, a_1 = Split(x)\n");
  const auto target = parse_model("model ir=8 opset=17\ninput a\n");
  ValueMap map{{source->graph.find("x"), target->graph.find("a")}};
  const Node* copy = clone_node(*source->graph.nodes()[0], target->graph, map);
  CHECK(copy->output(0)->name() == "a_1");
  CHECK(copy->output(1)->name() != "a_1");
  Invariants::check(target->graph);
}

TEST_CASE("a branch can be copied into the graph around it") {
  const auto model = parse_model(R"(model ir=8 opset=17
input c: bool[]
input x: float32[2]
t = Relu(x)
y = If(c) {then_branch=graph {
  t = Neg(x)
  u = Exp(t)
  output u
}}
output y
)");
  Graph& graph = model->graph;
  Node* choice = graph.find("y")->producer();
  ValueMap map;
  for (const Node* node : choice->subgraphs().at(0)->nodes())
    clone_node(*node, graph, map, choice);
  graph.replace_uses(choice->output(), map.at(choice->subgraphs().at(0)->outputs()[0]));
  graph.remove(choice);
  Invariants::check(graph);
  CHECK(to_text(graph) == R"(input c: bool[]
input x: float32[2]
t = Relu(x)
t_1 = Neg(x)
y = Exp(t_1)
output y
)");
}

}  // namespace
}  // namespace onnxpress
