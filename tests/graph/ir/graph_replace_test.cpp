#include <doctest/doctest.h>

#include "graph/ir/model.h"
#include "graph/ir/parse.h"
#include "invariants.h"

namespace onnxpress {
namespace {

// Replaces in `before` the value `old` of graph by `replacement`, both found in the main graph.
std::string replaced(std::string_view before, const char* old, const char* replacement) {
  const auto model = parse_model(before);
  Graph& graph = model->graph;
  graph.replace_uses(graph.find(old), graph.find(replacement));
  Invariants::check(graph);
  return to_text(model->graph);
}

TEST_CASE("readers, direct and nested, read the replacement") {
  CHECK(replaced(R"(model ir=8 opset=17
input c: bool[]
a = Relu(c)
b = Neg(c)
d = Add(a, a)
e = If(c) {then_branch=graph {
  t = Add(a, d)
  output t
}}
output e
)",
                 "a", "b") == R"(input c: bool[]
a = Relu(c)
b = Neg(c)
d = Add(b, b)
e = If(c) {then_branch=graph {
  t = Add(b, d)
  output t
}}
output e
)");
}

TEST_CASE("a node's output takes the name and type of the graph output it replaces") {
  CHECK(replaced(R"(model ir=8 opset=17
input x: float32[n]
a = Relu(x)
b: float32[?] = Neg(x)
z = Erf(a)
output a: float32[n]
output z
)",
                 "a", "b") == R"(input x: float32[n]
a_1: float32[n] = Relu(x)
a = Neg(x)
z = Erf(a)
output a: float32[n]
output z
)");
}

TEST_CASE("what cannot take an output's name goes through Identity") {
  const char* const text = R"(model ir=8 opset=17
input x: float32[n]
initializer w: float32[1] = {1}
a = Relu(x)
b = Neg(x)
output a: float32[n]
output b
)";
  SUBCASE("an input") {
    CHECK(replaced(text, "a", "x") == R"(input x: float32[n]
initializer w: float32[1] = {1}
a_1: float32[n] = Relu(x)
b = Neg(x)
a = Identity(x)
output a: float32[n]
output b
)");
  }
  SUBCASE("an initializer") {
    CHECK(replaced(text, "a", "w") == R"(input x: float32[n]
initializer w: float32[1] = {1}
a_1: float32[n] = Relu(x)
b = Neg(x)
a = Identity(w)
output a: float32[n]
output b
)");
  }
  SUBCASE("another output") {
    CHECK(replaced(text, "a", "b") == R"(input x: float32[n]
initializer w: float32[1] = {1}
a_1: float32[n] = Relu(x)
b = Neg(x)
a = Identity(b)
output a: float32[n]
output b
)");
  }
}

TEST_CASE("an output listed twice stays listed twice") {
  CHECK(replaced(R"(model ir=8 opset=17
input x: float32[n]
a = Relu(x)
b = Neg(x)
output a
output a
)",
                 "a", "b") == R"(input x: float32[n]
a_1 = Relu(x)
a = Neg(x)
output a
output a
)");
}

TEST_CASE("a constant that is an output gives its name away") {
  CHECK(replaced(R"(model ir=8 opset=17
input x: float32[n]
initializer w: float32[1] = {1}
b = Neg(x)
output w
)",
                 "w", "b") == R"(input x: float32[n]
initializer w_1: float32[1] = {1}
w = Neg(x)
output w: float32[1]
)");
}

TEST_CASE("an input that is an output keeps its name and so cannot be replaced there") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n]
b = Neg(x)
c = Erf(x)
output x
output c
)");
  const std::string before = to_text(*model);
  Graph& graph = model->graph;
  CHECK_THROWS_AS(graph.replace_uses(graph.find("x"), graph.find("b")), Error);
  CHECK(to_text(*model) == before);
}

TEST_CASE("outputs of subgraphs") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n]
a = Relu(x)
b = Neg(x)
y = Loop(x) {body=graph {
  input i: float32[n]
  t: float32[n] = Exp(i)
  u = Erf(i)
  output t
  output a
  output i
}}
output y
)");
  Graph& graph = model->graph;
  Graph& body = *graph.find("y")->producer()->subgraphs().at(0);
  const auto body_text = [&] {
    Invariants::check(graph);
    return to_text(body);
  };
  SUBCASE("by a node of the subgraph") {
    body.replace_uses(body.find("t"), body.find("u"));
    CHECK(body_text() == R"(input i: float32[n]
t_1: float32[n] = Exp(i)
t = Erf(i)
output t: float32[n]
output a
output i
)");
  }
  SUBCASE("by a value of the graph around") {
    body.replace_uses(body.find("t"), graph.find("b"));
    CHECK(body_text() == R"(input i: float32[n]
t_1: float32[n] = Exp(i)
u = Erf(i)
t = Identity(b)
output t: float32[n]
output a
output i
)");
  }
  SUBCASE("an outer value listed as output") {
    graph.replace_uses(graph.find("a"), graph.find("b"));
    CHECK(body_text() == R"(input i: float32[n]
t = Exp(i)
u = Erf(i)
Identity = Identity(b)
output t: float32[n]
output Identity
output i
)");
  }
  SUBCASE("the subgraph's own input listed as output") {
    body.replace_uses(body.find("i"), body.find("u"));
    CHECK(body_text() == R"(input i: float32[n]
t = Exp(u)
u = Erf(u)
output t: float32[n]
output a
output u
)");
  }
  SUBCASE("by an outer value of the same name") {
    body.rename(body.find("t"), "b");
    body.replace_uses(body.find("b"), graph.find("b"));
    CHECK(body_text() == R"(input i: float32[n]
b_1: float32[n] = Exp(i)
u = Erf(i)
Identity = Identity(b)
output Identity: float32[n]
output a
output i
)");
  }
  SUBCASE("an inner value cannot replace what is read outside") {
    const std::string before = to_text(*model);
    CHECK_THROWS_AS(graph.replace_uses(graph.find("y"), body.find("u")), Error);
    CHECK(to_text(*model) == before);
  }
}

TEST_CASE("replacing a value by itself changes nothing") {
  const char* const text = R"(input x: float32[n]
a = Relu(x)
output a
)";
  CHECK(replaced(std::string("model ir=8 opset=17\n") + text, "a", "a") == text);
}

}  // namespace
}  // namespace onnxpress
