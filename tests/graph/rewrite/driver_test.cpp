#include <doctest/doctest.h>

#include "graph/rewrite/pattern.h"
#include "model_builder.h"

namespace onnxpress {
namespace {

Rule double_negation() {
  return {
      .name = "double_negation",
      .pattern = Pattern::op("Neg", "outer", {Pattern::op("Neg", "inner", {Pattern::any("x")})}),
      .when = {},
      .replace = [](const Match& match, Patch& patch) {
        patch.replace(match.root->output(), match.value("x"));
      }};
}

TEST_CASE("rules run to the fixed point, in every graph") {
  TestModel m(R"(model ir=8 opset=17 local=1
input c: bool[]
input x: float32[2]
a = Neg(x)
b = Neg(a)
d = Neg(b)
e = Neg(d)
i = If(c) {else_branch=graph {
  p = Neg(e)
  q = Neg(p)
  r = Relu(q)
  output r
}, then_branch=graph {
  t = Relu(e)
  output t
}}
y = local.F(i)
output y
function local.F() opset=17 {
  input v
  f = Neg(v)
  g = Neg(f)
  h = Exp(g)
  output h
}
)");
  const RuleCounts counts = apply_rules(*m.model, {double_negation()});
  CHECK(counts.applied == std::map<std::string, std::int64_t>{{"double_negation", 4}});
  CHECK(counts.misses.empty());
  CHECK_FALSE(counts.limit_reached);
  CHECK(m.graph.node_count() == 2);
  CHECK(m.node("i")->subgraphs().at(0)->node_count() == 1);
  CHECK(m.node("i")->captured() == std::vector<Value*>{m.value("x")});
  CHECK(m.model->functions.at(0)->body.node_count() == 1);
  verify(*m.model);
  const Hash128 hash = structural_hash(*m.model, true);
  CHECK(apply_rules(*m.model, {double_negation()}).applied.at("double_negation") == 0);
  CHECK(structural_hash(*m.model, true) == hash);
}

TEST_CASE("what only the match read goes with it") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
initializer k: float32[2] = {1,2}
u = Exp(k) "helper"
p = Mul(x, u) "product"
y = Relu(p)
z = Abs(x)
output y
output z
)");
  const Rule rule{.name = "drop_product",
                  .pattern = Pattern::op("Relu", "", {Pattern::op("Mul", "", {Pattern::any("x")})}),
                  .when = {},
                  .replace = [](const Match& match, Patch& patch) {
                    patch.replace(match.root->output(),
                                  patch.node({.op_type = "Sigmoid", .inputs = {match.value("x")}}));
                  }};
  apply_rules(*m.model, {rule});
  CHECK(m.graph.node_count() == 2);
  CHECK(m.value("k") == nullptr);
  verify(*m.model);
}

TEST_CASE("a node that nobody reads is no root") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
a = Neg(x)
b = Neg(a)
y = Relu(x)
output y
)");
  const Rule skip = {.name = "skip",
                     .pattern = Pattern::op("Neg", "outer", {Pattern::op("Neg", "inner")}),
                     .when = {},
                     .replace = [](const Match& match, Patch& patch) {
                       patch.replace_input(match.root, 0, match.node("inner")->input(0));
                     }};
  CHECK(apply_rules(*m.model, {skip}).applied.at("skip") == 0);
}

TEST_CASE("misses are listed at the fixed point, with the first failed condition") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
a = Neg(x) "first"
b = Neg(a) "second"
c = Neg(b) "third"
d = Neg(c) "fourth"
s = Add(a, d)
output s
)");
  Rule rule = double_negation();
  rule.when = [](const Match& match) -> std::optional<std::string> {
    if (match.root->name == "fourth") return "the fourth is left alone";
    return std::nullopt;
  };
  const RuleCounts counts = apply_rules(*m.model, {rule});
  // third and second go; then fourth follows first, which has another reader.
  CHECK(counts.applied.at("double_negation") == 1);
  REQUIRE(counts.misses.size() == 1);
  CHECK(counts.misses[0].rule == "double_negation");
  CHECK(counts.misses[0].subject == "node 'fourth' (Neg)");
  CHECK(counts.misses[0].reason ==
        "'a' (output of node 'first' (Neg)) has another reader: node of 's' (Add)");
}

TEST_CASE("earlier rules win at the same node") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
y = Relu(x)
output y
)");
  const auto become = [](std::string name, std::string op) {
    return Rule{.name = std::move(name),
                .pattern = Pattern::op("Relu", ""),
                .when = {},
                .replace = [op](const Match& match, Patch& patch) {
                  patch.replace(match.root->output(),
                                patch.node({.op_type = op, .inputs = {match.root->input(0)}}));
                }};
  };
  const RuleCounts counts = apply_rules(*m.model, {become("one", "Abs"), become("two", "Exp")});
  CHECK(counts.applied == std::map<std::string, std::int64_t>{{"one", 1}, {"two", 0}});
  CHECK(m.node("y")->is("Abs"));
}

TEST_CASE("the limit ends rules that feed themselves") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
y = Relu(x)
output y
)");
  const Rule growing{.name = "growing",
                     .pattern = Pattern::op("Relu", ""),
                     .when = {},
                     .replace = [](const Match& match, Patch& patch) {
                       patch.replace(
                           match.root->output(),
                           patch.node({.op_type = "Relu", .inputs = {match.root->input(0)}}));
                     }};
  const RuleCounts counts = apply_rules(*m.model, {growing}, 10);
  CHECK(counts.limit_reached);
  CHECK(counts.applied.at("growing") == 10);
  CHECK(m.graph.node_count() == 1);
  verify(*m.model);
}

TEST_CASE("a rule that leaves its patch empty changes nothing, one that does not apply is named") {
  TestModel m(R"(model ir=8 opset=17
input x: float32[2]
y: float32[2] = Relu(x) "relu"
output y: float32[2]
)");
  const std::string text = to_text(*m.model);
  Rule rule{.name = "idle",
            .pattern = Pattern::op("Relu", ""),
            .when = {},
            .replace = [](const Match&, Patch&) {}};
  CHECK(apply_rules(*m.model, {rule}).applied.at("idle") == 0);
  rule.name = "wrong";
  rule.replace = [](const Match& match, Patch& patch) {
    patch.replace(match.root->output(), patch.constant("c", Tensor(DType::int8, {2})));
  };
  CHECK_THROWS_WITH_AS(
      apply_rules(*m.model, {rule}),
      "rule 'wrong' at node 'relu' (Relu): 'y' is float32[2], its replacement, the new "
      "constant 'c', is int8[2]",
      Error);
  CHECK(to_text(*m.model) == text);
}

TEST_CASE("unused nodes and constants go, in nested graphs too") {
  TestModel m(R"(model ir=8 opset=17
input c: bool[]
input x: float32[2]
initializer k: float32[2] = {1,2}
initializer spare: float32[2] = {1,2}
a = Neg(x)
b = Add(a, k)
only_inner = Exp(x)
y = If(c) {else_branch=graph {
  initializer inner: float32[2] = {1,2}
  u = Add(only_inner, inner)
  e = Relu(x)
  output e
}, then_branch=graph {
  t = Abs(x)
  output t
}}
dead = If(c) {else_branch=graph {
  e2 = Relu(x)
  output e2
}, then_branch=graph {
  t2 = Abs(b)
  output t2
}}
output y
)");
  const RemovedCounts counts = remove_unused(m.graph);
  CHECK(counts.nodes == 5);  // dead, u, only_inner, b, a
  CHECK(counts.initializers == 3);
  CHECK(m.graph.node_count() == 1);
  verify(*m.model);
  CHECK(remove_unused(m.graph).nodes == 0);
}

}  // namespace
}  // namespace onnxpress
