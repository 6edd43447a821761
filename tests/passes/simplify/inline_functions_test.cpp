#include <doctest/doctest.h>

#include "graph/onnx/writer.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "inline_functions";

TEST_CASE("a function called once goes, its names stay") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17 local=1
input x: float32[2]
a = Relu(x)
y = local.Act(a) {alpha=0.5} "call"
output y: float32[2]
function local.Act(alpha) opset=17 {
  input v
  t = LeakyRelu(v) {alpha=@alpha(float)} "leaky"
  r = Add(t, v)
  output r
}
)",
                                 R"(model ir=8 opset=17 local=1
input x: float32[2]
a = Relu(x)
t = LeakyRelu(a) {alpha=0.5} "leaky"
y = Add(t, a)
output y: float32[2]
)");
  CHECK(run.outcome.counts["functions"] == 1);
  CHECK(run.outcome.counts["calls"] == 1);
  CHECK(serialized_size(*run.after) < serialized_size(*run.before));
}

TEST_CASE("names that are taken get a number") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17 local=1
input x: float32[2]
t = Relu(x)
b = local.Act(t)
y = Add(t, b)
output y: float32[2]
function local.Act() opset=17 {
  input v
  t = Abs(v)
  t_1 = Neg(t)
  r = Add(t_1, t)
  output r
}
)");
  CHECK(run.after->functions.empty());
  CHECK(run.after->graph.node_count() == 5);
}

TEST_CASE("a function called often stays where copies of it would grow the file") {
  const auto text = [](int calls, std::string_view body) {
    std::string lines, sum;
    for (int i = 0; i < calls; ++i) {
      lines += fmt::format("c{0} = local.Act(x)\n", i);
      sum += fmt::format("{}c{}", i ? ", " : "", i);
    }
    return fmt::format(R"(model ir=8 opset=17 local=1
input x: float32[2]
{}y = Sum({})
output y: float32[2]
function local.Act() opset=17 {{
  input v
{}
  output r
}}
)",
                       lines, sum, body);
  };
  const PassRun kept = check_unchanged(step, text(9, "  s = Abs(v)\n  t = Neg(s)\n  r = Exp(t)"));
  CHECK(kept.reason(step).starts_with("9 calls: inlined, they would take "));
  CHECK(kept.outcome.counts["kept"] == 1);
  const PassRun gone = run_pass(step, text(2, "  r = Exp(v)"));
  CHECK(gone.outcome.counts["calls"] == 2);
  CHECK(gone.after->functions.empty());
}

TEST_CASE("calls in bodies of functions and nested graphs") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17 local=1
input x: float32[2]
input c: bool[]
y = If(c) {then_branch=graph {
  a = local.Outer(x)
  output a
}, else_branch=graph {
  b = Neg(x)
  output b
}}
output y: float32[2]
function local.Outer() opset=17 local=1 {
  input v
  p = local.Inner(v)
  q = local.Inner(p)
  output q
}
function local.Inner() opset=17 {
  input v
  s = Exp(v)
  output s
}
)");
  CHECK(run.after->functions.empty());
  CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
}

TEST_CASE("what cannot be inlined stays, with the reason") {
  // Neither can the engine run it: not by the fixture.
  const std::unique_ptr<Model> opsets = parse_model(R"(model ir=8 opset=17 local=1
input x: float32[2]
y = local.Act(x)
output y: float32[2]
function local.Act() opset=12 {
  input v
  r = Softmax(v)
  output r
}
)");
  const Pipeline pipeline = Pipeline::parse(step);
  ThreadPool pool(1);
  std::vector<NearMiss> misses;
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .near_misses = &misses};
  CHECK_FALSE(pipeline.steps[0].pass->run(*opsets, context).changed);
  REQUIRE(misses.size() == 1);
  CHECK(misses[0].reason.find("operator set") != std::string::npos);
  const PassRun reference = run_pass(step, R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.Outer(x)
b = local.Outer(a)
c = local.Outer(b)
d = local.Outer(c)
e = local.Outer(d)
y = local.Outer(e)
output y: float32[2]
function local.Outer(alpha=0.5) opset=17 local=1 {
  input v
  p = local.Inner(v) {alpha=@alpha(float)}
  q = Exp(p)
  s = Neg(q)
  t = Abs(s)
  output t
}
function local.Inner(alpha=0.25) opset=17 {
  input v
  s = LeakyRelu(v) {alpha=@alpha(float)}
  output s
}
)");
  CHECK(reference.after->functions.size() == 2);
}

}  // namespace
}  // namespace onnxpress
