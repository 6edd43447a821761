#include <doctest/doctest.h>

#include "graph/rewrite/pattern.h"
#include "model_builder.h"

namespace onnxpress {
namespace {

Pattern normalized_convolution() {
  return Pattern::op(
      "BatchNormalization", "norm",
      {Pattern::op("Conv|Gemm", "linear", {Pattern::any("x"), Pattern::constant("w")}),
       Pattern::constant("scale")});
}

std::string model_text(std::string_view convolution, std::string_view rest) {
  return fmt::format(R"(model ir=8 opset=17
input x: float32[1,2,4,4]
input dynamic: float32[3,2,1,1]
initializer w: float32[3,2,1,1] = random(1)
initializer v: float32[3] = ones
{}
{}
output y
)",
                     convolution, rest);
}

constexpr std::string_view convolution = R"(a = Conv(x, w) "conv1")";
constexpr std::string_view normalization = R"(y = BatchNormalization(a, v, v, v, v) "bn1")";

TEST_CASE("a match binds nodes, values and constants") {
  TestModel m(model_text(convolution, normalization));
  std::string reason = "stale";
  const auto found = match(normalized_convolution(), m.node("y"), &reason);
  REQUIRE(found);
  CHECK(reason.empty());
  CHECK(found->root == m.node("y"));
  CHECK(found->node("linear") == m.node("a"));
  CHECK(found->node("norm") == m.node("y"));
  CHECK(found->node("x") == nullptr);
  CHECK(found->value("x") == m.value("x"));
  CHECK(found->value("linear") == m.value("a"));
  CHECK(found->value("none") == nullptr);
  CHECK(found->constant("w").dims() == Dims{3, 2, 1, 1});
  CHECK_THROWS_WITH_AS(found->constant("x"), "no constant is bound to 'x'", Error);
  CHECK(found->interior == std::vector<Node*>{m.node("a")});
  CHECK_FALSE(match(normalized_convolution(), m.node("a"), &reason));
  CHECK(reason.empty());
}

std::string reason_at(TestModel& m, const Pattern& pattern, std::string_view output) {
  std::string reason;
  CHECK_FALSE(match(pattern, m.node(output), &reason));
  return reason;
}

TEST_CASE("near misses say what stood in the way") {
  const Pattern pattern = normalized_convolution();
  SUBCASE("another reader") {
    TestModel m(model_text(convolution, R"(y = BatchNormalization(a, v, v, v, v) "bn1"
z = Add(a, y) "add"
output z)"));
    CHECK(reason_at(m, pattern, "y") ==
          "'a' (output of node 'conv1' (Conv)) has another reader: node 'add' (Add)");
  }
  SUBCASE("a reader in a nested graph") {
    TestModel m(model_text(convolution, R"(y = BatchNormalization(a, v, v, v, v) "bn1"
initializer c: bool[] = {1}
z = If(c) {else_branch=graph {
  e = Neg(a) "inner"
  output e
}, then_branch=graph {
  t = Neg(y)
  output t
}}
output z)"));
    CHECK(reason_at(m, pattern, "y") ==
          "'a' (output of node 'conv1' (Conv)) has another reader: node 'inner' (Neg)");
  }
  SUBCASE("a graph output") {
    TestModel m(model_text(convolution, R"(y = BatchNormalization(a, v, v, v, v)
output a)"));
    CHECK(reason_at(m, pattern, "y") == "'a' (output of node 'conv1' (Conv)) is a graph output");
  }
  SUBCASE("not a constant") {
    TestModel m(model_text(R"(a = Conv(x, dynamic) "conv1")", normalization));
    CHECK(reason_at(m, pattern, "y") ==
          "input 1 'dynamic' of node 'conv1' (Conv) is not a constant");
  }
  SUBCASE("not a constant at the root") {
    TestModel m(model_text(convolution, R"(input s: float32[3]
y = BatchNormalization(a, s, v, v, v) "bn1")"));
    CHECK(reason_at(m, pattern, "y") == "input 1 's' is not a constant");
  }
  SUBCASE("another operator is no near miss") {
    TestModel m(model_text(R"(a = Relu(x) "relu1")", normalization));
    CHECK(reason_at(m, pattern, "y").empty());
  }
  SUBCASE("another operator deeper down") {
    TestModel m(model_text(R"(r = Relu(x) "relu1"
a = Conv(r, w) "conv1")",
                           normalization));
    const Pattern deep = Pattern::op(
        "BatchNormalization", "norm",
        {Pattern::op("Conv", "linear", {Pattern::op("Sigmoid|Tanh|com.microsoft.Gelu", "act")})});
    CHECK(reason_at(m, deep, "y") ==
          "input 0 'r' of node 'conv1' (Conv): expected Sigmoid, Tanh or com.microsoft.Gelu, found "
          "node 'relu1' (Relu)");
    const Pattern from_input = Pattern::op(
        "BatchNormalization", "norm",
        {Pattern::op("Conv", "", {Pattern::op("Relu", "", {Pattern::op("Relu", "")})})});
    CHECK(reason_at(m, from_input, "y") ==
          "input 0 'x' of node 'relu1' (Relu): expected Relu, found graph input 'x'");
  }
  SUBCASE("an omitted input") {
    TestModel m(model_text(convolution, normalization));
    const Pattern biased = Pattern::op(
        "BatchNormalization", "",
        {Pattern::op("Conv", "", {Pattern::any(), Pattern::any(), Pattern::constant()})});
    CHECK(reason_at(m, biased, "y") ==
          "input 2 of node 'conv1' (Conv) is omitted, expected a constant");
  }
  SUBCASE("a pattern without operators below the root") {
    TestModel m(model_text(R"(a = Conv(x, dynamic) "conv1")", normalization));
    CHECK(reason_at(m, Pattern::op("Conv", "", {Pattern::any(), Pattern::constant()}), "a") ==
          "input 1 'dynamic' is not a constant");
  }
}

TEST_CASE("other outputs") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[4]
a, b = Split(x) "split"
y = Relu(b) "relu"
output y
)");
  CHECK(match(Pattern::op("Relu", "", {Pattern::op("Split", "s").from_output(1)}), m.node("y")));
  CHECK(reason_at(m, Pattern::op("Relu", "", {Pattern::op("Split", "s")}), "y") ==
        "input 0 'b': expected output 0 of node 'split' (Split), found output 1");
}

TEST_CASE("commutative operators match either way, inside each other too") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
initializer k: float32[2] = {1,2}
p = Mul(k, x) "mul"
y = Add(k, p) "add"
output y
)");
  const auto product = [] {
    return Pattern::op("Mul", "mul", {Pattern::any("x"), Pattern::constant("k")});
  };
  CHECK_FALSE(match(Pattern::op("Add", "", {product().commutative(), Pattern::constant("b")}),
                    m.node("y")));
  CHECK_FALSE(match(Pattern::op("Add", "", {product(), Pattern::constant("b")}).commutative(),
                    m.node("y")));
  const auto found =
      match(Pattern::op("Add", "", {product().commutative(), Pattern::constant("b")}).commutative(),
            m.node("y"));
  REQUIRE(found);
  CHECK(found->value("x") == m.value("x"));
  CHECK(found->value("b") == m.value("k"));
}

TEST_CASE("a name used twice is the same value, and the order of operands is tried for it") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
input z: float32[2]
s = Sigmoid(x)
y = Mul(x, s) "swish"
t = Sigmoid(x)
o = Mul(z, t)
both = Add(z, x)
last = Mul(both, x)
output y
output o
output last
)");
  const Pattern swish =
      Pattern::op("Mul", "", {Pattern::any("x"), Pattern::op("Sigmoid", "", {Pattern::any("x")})})
          .commutative();
  CHECK(match(swish, m.node("y")));
  CHECK(reason_at(m, swish, "o") == "'z' and 'x' are not the same value");
  // The inner Add must be taken the other way round for "a" to be x both times.
  const Pattern backtracking =
      Pattern::op("Mul", "",
                  {Pattern::op("Add", "", {Pattern::any("a"), Pattern::any()}).commutative(),
                   Pattern::any("a")});
  const auto found = match(backtracking, m.node("last"));
  REQUIRE(found);
  CHECK(found->value("a") == m.value("x"));
}

TEST_CASE("a diamond is one match") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
d = Neg(x) "neg"
e = Exp(d)
y = Add(d, e)
output y
)");
  const Pattern pattern = Pattern::op(
      "Add", "", {Pattern::op("Neg", "d"), Pattern::op("Exp", "", {Pattern::op("Neg", "d")})});
  const auto found = match(pattern, m.node("y"));
  REQUIRE(found);
  CHECK(found->interior.size() == 2);
  // Only one of the readers is in this one.
  CHECK(reason_at(m, Pattern::op("Add", "", {Pattern::op("Neg", "d")}), "y") ==
        "'d' (output of node 'neg' (Neg)) has another reader: node of 'e' (Exp)");
}

TEST_CASE("constants of a graph around match, its nodes do not") {
  TestModel m(R"(model ir=8 opset=17
input c: bool[]
input x: float32[2]
initializer k: float32[2] = {1,2}
a = Neg(x) "neg"
y = If(c) {else_branch=graph {
  e = Add(a, k)
  output e
}, then_branch=graph {
  t = Relu(a)
  output t
}}
output y
)");
  Node* inner = m.node("y")->subgraphs().at(0)->nodes().at(0);
  CHECK(match(Pattern::op("Add", "", {Pattern::any(), Pattern::constant("k")}), inner));
  std::string reason;
  CHECK_FALSE(match(Pattern::op("Add", "", {Pattern::op("Neg", "")}), inner, &reason));
  CHECK(reason == "input 0 'a' is made outside the graph, by node 'neg' (Neg)");
}

TEST_CASE("a constant that callers can override is none") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
input k: float32[2] = {1,2}
y = Add(x, k)
output y
)");
  CHECK(reason_at(m, Pattern::op("Add", "", {Pattern::any(), Pattern::constant()}), "y") ==
        "input 1 'k' is a constant that callers can override");
}

}  // namespace
}  // namespace onnxpress
