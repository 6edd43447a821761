#include "graph/rewrite/patch.h"

#include <doctest/doctest.h>

#include "graph/rewrite/pattern.h"
#include "model_builder.h"

namespace onnxpress {
namespace {

constexpr std::string_view chain = R"(model ir=8 opset=17
input x: float32[2,3]
initializer w: float32[3,2] = {1,2,3,4,5,6}
initializer b: float32[2] = {1,2}
a: float32[2,2] = MatMul(x, w) "product"
s: float32[2,2] = Add(a, b) "sum"
y: float32[2,2] = Relu(s) "relu"
output y: float32[2,2]
)";

// Applying must fail with `message` in its text and leave everything as it was.
void check_refused(const Model& model, Patch& patch, std::string_view message) {
  const std::string text = to_text(model);
  const Hash128 hash = structural_hash(model, true);
  std::string found = "nothing";
  try {
    patch.apply();
  } catch (const Error& error) {
    found = error.what();
  }
  CAPTURE(found);
  CHECK(found.find(message) != std::string::npos);
  CHECK(to_text(model) == text);
  CHECK(structural_hash(model, true) == hash);
  verify(model);
}

TEST_CASE("a node takes the place and name of those it stands for") {
  TestModel m(chain);
  Patch patch(m.graph);
  const Patch::Ref gemm =
      patch.node({.op_type = "Gemm", .inputs = {m.value("x"), m.value("w"), m.value("b")}});
  patch.replace(m.value("s"), gemm);
  patch.remove(m.node("s"));
  patch.remove(m.node("a"));
  const Patch::Applied applied = patch.apply();
  REQUIRE(applied.created.size() == 1);
  CHECK(applied.removed.size() == 2);
  const Node* node = applied.created[0];
  CHECK(node->describe() == "node 'sum' (Gemm)");
  CHECK(patch.value(gemm) == node->output());
  CHECK(node->output()->type == parse_type("float32[2,2]"));
  CHECK(m.graph.nodes().front() == node);
  CHECK(m.node("y")->input(0) == node->output());
  verify(*m.model);
}

TEST_CASE("an output keeps its name") {
  TestModel m(chain);
  Patch patch(m.graph);
  patch.replace(m.value("y"),
                patch.node({.op_type = "Sigmoid", .name = "sum", .inputs = {m.value("s")}}));
  patch.remove(m.node("y"));
  const Node* node = patch.apply().created.at(0);
  CHECK(node->output()->name() == "y");
  CHECK(m.graph.outputs()[0] == node->output());
  CHECK(node->name == "sum_1");  // "sum" is there already
  verify(*m.model);
}

TEST_CASE("a node behind a value is read by all other readers") {
  TestModel m(chain);
  Patch patch(m.graph);
  patch.replace(m.value("a"), patch.node({.op_type = "Neg", .inputs = {m.value("a")}}));
  const Node* neg = patch.apply().created.at(0);
  CHECK(neg->input(0) == m.value("a"));
  CHECK(m.node("s")->input(0) == neg->output());
  CHECK(m.graph.nodes()[1] == neg);
  verify(*m.model);

  Patch behind_output(m.graph);
  behind_output.replace(m.value("y"),
                        behind_output.node({.op_type = "Abs", .inputs = {m.value("y")}}));
  const Node* abs = behind_output.apply().created.at(0);
  CHECK(abs->output()->name() == "y");
  CHECK(abs->input(0)->producer()->is("Relu"));
  CHECK(m.graph.nodes().back() == abs);
  verify(*m.model);

  Patch behind_input(m.graph);
  behind_input.replace(m.value("x"),
                       behind_input.node({.op_type = "Neg", .inputs = {m.value("x")}}));
  behind_input.apply();
  CHECK(m.graph.nodes().front()->is("Neg"));
  verify(*m.model);
}

TEST_CASE("constants come and go") {
  TestModel m(chain);
  Patch patch(m.graph);
  const Patch::Ref unused = patch.constant("spare", Tensor::scalar(1.0F));
  const Patch::Ref sum = patch.constant("b", Tensor::of<float>({2}, {5, 6}));
  patch.replace_input(m.node("s"), 1, sum);
  patch.apply();
  CHECK(patch.value(unused) == nullptr);
  CHECK(m.value("spare") == nullptr);
  CHECK(m.value("b") == nullptr);  // lost its last reader
  CHECK(m.node("s")->input(1) == patch.value(sum));
  CHECK(m.graph.initializers().size() == 2);

  Patch change(m.graph);
  change.set_constant(m.value("w"), Tensor::of<float>({3, 2}, {0, 0, 0, 0, 0, 0}));
  CHECK_FALSE(change.empty());
  change.apply();
  CHECK(m.value("w")->constant()->data<float>()[5] == 0);
  verify(*m.model);
}

TEST_CASE("a constant that others read stays") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
initializer b: float32[2] = {1,2}
s: float32[2] = Add(x, b)
y: float32[2] = Mul(s, b)
output y: float32[2]
)");
  Patch patch(m.graph);
  patch.replace(m.value("s"), m.value("x"));
  patch.remove(m.node("s"));
  patch.apply();
  CHECK(m.value("b") != nullptr);
  CHECK(m.node("y")->input(0) == m.value("x"));
  verify(*m.model);
}

TEST_CASE("a replacement of a graph output by an input gets an Identity") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
y: float32[2] = Neg(x)
output y: float32[2]
)");
  Patch patch(m.graph);
  patch.replace(m.value("y"), m.value("x"));
  patch.remove(m.node("y"));
  patch.apply();
  CHECK(m.graph.outputs()[0]->name() == "y");
  CHECK(m.graph.outputs()[0]->producer()->is("Identity"));
  verify(*m.model);
}

TEST_CASE("removal follows reading") {
  TestModel m(chain);
  Patch patch(m.graph);
  patch.replace(m.value("y"), patch.node({.op_type = "Sigmoid", .inputs = {m.value("a")}}));
  patch.remove_if_unread(m.node("a"));  // the new node reads it
  patch.remove_if_unread(m.node("y"));
  patch.remove_unread_producers();  // the sum
  CHECK(patch.apply().removed.size() == 2);
  CHECK(m.value("b") == nullptr);
  CHECK(m.node("a")->is("MatMul"));
  CHECK(m.graph.node_count() == 2);
  verify(*m.model);
}

TEST_CASE("a patch that cannot hold changes nothing") {
  TestModel m(chain);
  Patch patch(m.graph);
  SUBCASE("a removed node is still read") {
    patch.remove(m.node("a"));
    check_refused(
        *m.model, patch,
        "node 'product' (MatMul) cannot be removed: 'a' is still read by node 'sum' (Add)");
  }
  SUBCASE("a removed node is an output") {
    patch.remove(m.node("y"));
    check_refused(*m.model, patch, "'y' is still read by the outputs of graph");
  }
  SUBCASE("a removed node is read by a new one") {
    patch.replace(m.value("a"), patch.node({.op_type = "Neg", .inputs = {m.value("a")}}));
    patch.remove(m.node("a"));
    check_refused(*m.model, patch, "'a' is still read by the new Neg");
  }
  SUBCASE("element types differ") {
    patch.replace(m.value("s"), patch.constant("c", Tensor(DType::int8, {2, 2})));
    check_refused(*m.model, patch,
                  "'s' is float32[2,2], its replacement, the new constant 'c', is int8[2,2]");
  }
  SUBCASE("shapes differ") {
    patch.replace(m.value("s"), m.value("x"));
    check_refused(*m.model, patch, "'s' is float32[2,2], its replacement, 'x', is float32[2,3]");
  }
  SUBCASE("the shape of a new node differs") {
    Attributes attributes;
    attributes["perm"] = std::vector<std::int64_t>{1, 0};
    patch.replace(m.value("s"), patch.node({.op_type = "Transpose",
                                            .inputs = {m.value("x")},
                                            .attributes = std::move(attributes)}));
    check_refused(*m.model, patch, "output 0 of the new Transpose, is float32[3,2]");
  }
  SUBCASE("new nodes contradict each other") {
    const Patch::Ref product =
        patch.node({.op_type = "MatMul", .inputs = {m.value("x"), m.value("x")}});
    patch.replace(m.value("s"), product);
    check_refused(*m.model, patch, "(MatMul)");
  }
  SUBCASE("a cycle") {
    patch.replace(m.value("a"), m.value("s"));
    check_refused(*m.model, patch, "would make a cycle through");
  }
  SUBCASE("a cycle through a new node") {
    patch.replace_input(m.node("a"), 0,
                        patch.node({.op_type = "MatMul", .inputs = {m.value("y"), m.value("x")}}));
    check_refused(*m.model, patch, "would make a cycle through");
  }
  SUBCASE("a domain that is not imported") {
    patch.replace(
        m.value("s"),
        patch.node({.op_type = "Gelu", .domain = "com.microsoft", .inputs = {m.value("a")}}));
    check_refused(*m.model, patch, "domain 'com.microsoft', which is not imported");
  }
  SUBCASE("replaced twice") {
    patch.replace(m.value("s"), m.value("a"));
    patch.replace(m.value("s"), m.value("a"));
    check_refused(*m.model, patch, "'s' is replaced twice");
  }
  SUBCASE("an input replaced twice") {
    patch.replace_input(m.node("s"), 0, m.value("s"));
    patch.replace_input(m.node("s"), 0, m.value("a"));
    check_refused(*m.model, patch, "input 0 of node 'sum' (Add) is replaced twice");
  }
  SUBCASE("a replacement that is replaced") {
    patch.replace(m.value("y"), m.value("s"));
    patch.replace(m.value("s"), m.value("a"));
    check_refused(*m.model, patch, "which the same patch replaces");
  }
  SUBCASE("contents for what is not a constant") {
    patch.set_constant(m.value("a"), Tensor::scalar(1.0F));
    check_refused(*m.model, patch, "'a' is not a constant");
  }
  SUBCASE("an input of a removed node") {
    patch.replace(m.value("y"), m.value("s"));
    patch.remove(m.node("y"));
    patch.replace_input(m.node("y"), 0, m.value("a"));
    check_refused(*m.model, patch, "but the node is removed");
  }
}

TEST_CASE("an input that is an output cannot give its name away") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
y: float32[2] = Neg(x)
output y: float32[2]
)");
  m.graph.add_output(m.value("x"));
  Patch patch(m.graph);
  patch.replace(m.value("x"), patch.node({.op_type = "Neg", .inputs = {m.value("x")}}));
  check_refused(*m.model, patch, "'x' is both input and output");
}

TEST_CASE("readers before the replacement are moved behind it") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
a: float32[2] = Neg(x)
early: float32[2] = Abs(a)
late: float32[2] = Exp(x)
y: float32[2] = Add(early, late)
output y: float32[2]
)");
  Patch patch(m.graph);
  patch.replace(m.value("a"), m.value("late"));
  patch.remove(m.node("a"));
  patch.apply();
  CHECK(m.node("early")->input(0) == m.value("late"));
  verify(*m.model);

  Patch with_node(m.graph);
  with_node.replace_input(m.node("late"), 0,
                          with_node.node({.op_type = "Neg", .inputs = {m.value("x")}}));
  with_node.apply();
  CHECK(m.graph.nodes().front()->is("Neg"));
  verify(*m.model);
}

constexpr std::string_view with_branches = R"(model ir=8 opset=17
input c: bool[]
input x: float32[2]
initializer k: float32[2] = {1,2}
a: float32[2] = Neg(x) "neg"
y: float32[2] = If(c) {else_branch=graph {
  e: float32[2] = Add(a, k)
  output e
}, then_branch=graph {
  t: float32[2] = Relu(a) "inner"
  output t
}} "branch"
output y: float32[2]
)";

TEST_CASE("readers in nested graphs count") {
  TestModel m(with_branches);
  SUBCASE("a node they read cannot be removed") {
    Patch patch(m.graph);
    patch.remove(m.node("a"));
    check_refused(*m.model, patch, "still read by");
  }
  SUBCASE("they read the replacement") {
    Patch patch(m.graph);
    patch.replace(m.value("a"), patch.node({.op_type = "Abs", .inputs = {m.value("x")}}));
    patch.remove(m.node("a"));
    Node* made = patch.apply().created.at(0);
    CHECK(made->output()->uses().size() == 2);
    CHECK(made->name == "neg");
    verify(*m.model);
  }
  SUBCASE("one input in a nested graph") {
    Patch patch(m.graph);
    Graph* then_graph = m.node("y")->subgraphs().at(1);
    patch.replace_input(then_graph->nodes().at(0), 0, m.value("x"));
    patch.apply();
    CHECK(m.value("a")->uses().size() == 1);
    verify(*m.model);
  }
  SUBCASE("a patch of a nested graph drops an outer constant") {
    Graph* else_graph = m.node("y")->subgraphs().at(0);
    Patch patch(*else_graph);
    Node* add = else_graph->nodes().at(0);
    patch.replace(add->output(), patch.node({.op_type = "Abs", .inputs = {m.value("a")}}));
    patch.remove(add);
    patch.apply();
    CHECK(m.value("k") == nullptr);
    verify(*m.model);
  }
  SUBCASE("an outer value defined after the node that holds the graph is not for its nodes") {
    Graph* else_graph = m.node("y")->subgraphs().at(0);
    Patch patch(*else_graph);
    patch.replace_input(else_graph->nodes().at(0), 0, m.value("y"));
    check_refused(*m.model, patch, "is defined after the node that holds graph");
  }
  SUBCASE("removing the holder removes its readers") {
    Patch patch(m.graph);
    patch.replace(m.value("y"), patch.node({.op_type = "Exp", .inputs = {m.value("x")}}));
    patch.remove(m.node("y"));
    patch.remove(m.node("a"));
    patch.apply();
    CHECK(m.graph.node_count() == 1);
    CHECK(m.value("k") == nullptr);
    verify(*m.model);
  }
}

TEST_CASE("a patch is applied once") {
  TestModel m(chain);
  Patch patch(m.graph);
  CHECK(patch.empty());
  patch.replace(m.value("s"), patch.node({.op_type = "Neg", .inputs = {m.value("a")}}));
  patch.apply();
  CHECK_THROWS_WITH_AS(patch.apply(), "a patch is applied once", Error);
}

}  // namespace
}  // namespace onnxpress
