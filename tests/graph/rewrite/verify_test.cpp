#include <doctest/doctest.h>

#include "graph/rewrite/pattern.h"
#include "model_builder.h"

namespace onnxpress {
namespace {

std::string failure_of(const Model& model) {
  try {
    verify(model);
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

constexpr std::string_view text = R"(model ir=8 opset=17
input x: float32[2,3]
initializer w: float32[3,4] = random(1)
a: float32[2,4] = MatMul(x, w) "product"
y: float32[2,4] = Relu(a) "relu"
output y: float32[2,4]
)";

TEST_CASE("a sound model verifies") {
  TestModel m(text);
  CHECK(failure_of(*m.model) == "none");
  CHECK(failure_of(*parse_model("model ir=8 opset=17")) == "none");
}

TEST_CASE("nodes before what they read") {
  TestModel m(text);
  m.graph.move_before(m.node("y"), m.node("a"));
  const std::string failure = failure_of(*m.model);
  CAPTURE(failure);
  CHECK(contains(failure, "node 'relu' (Relu): input 0 is read before it is defined"));
}

TEST_CASE("a cycle") {
  TestModel m(text);
  m.graph.set_node_input(m.node("a"), 0, m.value("y"));
  CHECK(contains(failure_of(*m.model),
                 "node 'product' (MatMul): input 0 is read before it is defined"));
}

TEST_CASE("a node that reads what its own subgraph needs later") {
  TestModel m(R"(model ir=8 opset=17
input c: bool[]
input x: float32[2]
late: float32[2] = Neg(x)
y: float32[2] = If(c) {else_branch=graph {
  e = Relu(late)
  output e
}, then_branch=graph {
  t = Relu(x)
  output t
}}
output y: float32[2]
)");
  CHECK(failure_of(*m.model) == "none");
  m.graph.move_before(m.node("y"), m.node("late"));
  CHECK(contains(failure_of(*m.model), "input 0 is read before it is defined"));
}

TEST_CASE("a domain without import") {
  TestModel m(text);
  m.graph.set_operator(m.node("y"), "Gelu", "com.microsoft");
  CHECK(contains(failure_of(*m.model), "domain 'com.microsoft' is not imported"));
  m.model->opsets["com.microsoft"] = 1;
  CHECK(failure_of(*m.model) == "none");
}

TEST_CASE("shapes that contradict each other") {
  TestModel m(text);
  m.graph.set_initializer(m.value("w"), Tensor(DType::float32, {5, 4}));
  CHECK(contains(failure_of(*m.model), "node 'product' (MatMul)"));
}

TEST_CASE("an output that is not what it is declared") {
  TestModel m(text);
  m.graph.set_initializer(m.value("w"), Tensor(DType::float32, {3, 5}));
  m.value("a")->type = {};
  const std::string failure = failure_of(*m.model);
  CAPTURE(failure);
  CHECK(contains(failure, "output 'y' is declared float32[2,4], but computed as float32[2,5]"));
  const std::vector<std::string> known = contradicted_declarations(*m.model);
  REQUIRE(known.size() == 1);
  CHECK(contains(failure, known[0]));
  CHECK_NOTHROW(verify(*m.model, known));
}

TEST_CASE("a constant whose type is not that of its contents") {
  TestModel m(text);
  m.value("w")->type = parse_type("float32[4,3]");
  CHECK(contains(failure_of(*m.model),
                 "initializer 'w' is declared float32[4,3], but holds float32[3,4]"));
}

TEST_CASE("functions are verified under their own imports") {
  TestModel m(R"(model ir=8 opset=17 local=1
input x: float32[2]
y = local.F(x)
output y
function local.F() opset=17 {
  input v
  f = Neg(v) "neg"
  g = Abs(f)
  output g
}
)");
  CHECK(failure_of(*m.model) == "none");
  Graph& body = m.model->functions[0]->body;
  body.set_operator(body.nodes()[0], "Other", "com.other");
  m.model->opsets["com.other"] = 1;
  const std::string failure = failure_of(*m.model);
  CAPTURE(failure);
  CHECK(contains(failure,
                 "function 'F' / graph 'F' / node 'neg' (com.other.Other): domain 'com.other' is "
                 "not imported"));
}

}  // namespace
}  // namespace onnxpress
