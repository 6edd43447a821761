#include <doctest/doctest.h>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "fold_control_flow";

TEST_CASE("an If of constant condition is its branch, with captures, constants and names") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer c: bool[] = {1}
a = Relu(x)
b, d = If(c) {then_branch=graph {
  initializer w: float32[2] = {1,2}
  t = Add(a, w) "inside"
  u = Neg(t)
  output t
  output u
}, else_branch=graph {
  e = Exp(x)
  output e
  output x
}}
y = Mul(b, d)
output y: float32[2]
)",
                                 R"(model ir=8 opset=17
input x: float32[2]
initializer c: bool[] = {1}
initializer w: float32[2] = {1,2}
a = Relu(x)
b = Add(a, w) "inside"
d = Neg(b)
y = Mul(b, d)
output y: float32[2]
)");
  CHECK(run.outcome.counts["branches"] == 1);
}

TEST_CASE("names that the graph around has are made unique") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer c: bool[1] = {0}
t = Relu(x)
b = If(c) {then_branch=graph {
  n = Neg(x)
  output n
}, else_branch=graph {
  t = Exp(x)
  u = Abs(t)
  output u
}}
y = Mul(b, t)
output y: float32[2]
)");
  CHECK(run.after->graph.node_count() == 4);
}

TEST_CASE("graph outputs keep their names, whatever the branch gives") {
  SUBCASE("what it computes") {
    const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer c: bool[] = {1}
y = If(c) {then_branch=graph {
  t = Neg(x)
  output t
}, else_branch=graph {
  e = Exp(x)
  output e
}}
output y: float32[2]
)");
    CHECK(run.after->graph.node_count() == 1);
  }
  SUBCASE("what it captures") {
    const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer c: bool[] = {1}
y = If(c) {then_branch=graph {
  output x
}, else_branch=graph {
  e = Exp(x)
  output e
}}
output y: float32[2]
)");
    CHECK(run.after->graph.nodes()[0]->is("Identity"));
  }
  SUBCASE("the same twice") {
    const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer c: bool[] = {1}
y, z = If(c) {then_branch=graph {
  t = Neg(x)
  output t
  output t
}, else_branch=graph {
  e = Exp(x)
  output e
  output e
}}
output y: float32[2]
output z: float32[2]
)");
    CHECK(run.after->graph.node_count() == 2);
  }
}

TEST_CASE("nested ones, and conditions that follow from shapes") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2,3]
initializer two: int64[] = {2}
initializer yes: bool[] = {1}
s = Shape(x)
n = Size(s)
c = Equal(n, two)
y = If(c) {then_branch=graph {
  k = If(yes) {then_branch=graph {
    a = Neg(x)
    output a
  }, else_branch=graph {
    b = Abs(x)
    output b
  }}
  m = Relu(k)
  output m
}, else_branch=graph {
  e = Exp(x)
  output e
}}
output y: float32[2,3]
)");
  CHECK(run.outcome.counts["branches"] == 2);
  CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
}

TEST_CASE("an If whose condition is an input stays") {
  const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
y = If(c) {then_branch=graph {
  t = Neg(x)
  output t
}, else_branch=graph {
  e = Exp(x)
  output e
}}
output y: float32[2]
)");
  CHECK(run.reason(step) == "its condition is not constant");
}

// A loop that sums what it is given, and stacks it.
std::string loop(std::string_view trips, std::string_view begin, std::string_view next = "go",
                 std::string_view opset = "17") {
  return fmt::format(R"(model ir=8 opset={3}
input x: float32[2]
input many: int64[]
input begin: bool[]
initializer zero: int64[] = {{0}}
initializer one: int64[] = {{1}}
initializer two: int64[] = {{2}}
initializer yes: bool[] = {{1}}
initializer no: bool[] = {{0}}
state = Relu(x)
y, z = Loop({0}, {1}, state) {{body=graph {{
  input i: int64[]
  input go: bool[]
  input v: float32[2]
  f = Cast(i) {{to=1}}
  w = Add(v, f)
  u = Mul(w, x)
  nogo = Not(yes)
  next = Identity({2})
  output next
  output w
  output u: float32[2]
}}}}
output y: float32[2]
output z: float32[?,2]
)",
                     trips, begin, next, opset);
}

const PassRunOptions few = {.seed = 7,
                            .calibration = nullptr,
                            .training = nullptr,
                            .input_ranges = {{"many", {0, 3}}}};

TEST_CASE("a Loop of one step is its body") {
  for (const std::string_view opset : {"11", "17"}) {
    const PassRun run = run_pass(step, loop("one", "_", "go", opset), few);
    CHECK(run.outcome.counts["loops"] == 1);
    for (const Node* node : run.after->graph.nodes()) CHECK_FALSE(node->is("Loop"));
    CHECK(run.after->graph.nodes().back()->is("Unsqueeze"));
  }
  CHECK(run_pass(step, loop("one", "yes"), few).outcome.counts["loops"] == 1);
}

TEST_CASE("a Loop whose condition ends it after one step") {
  CHECK(run_pass(step, loop("two", "yes", "nogo"), few).outcome.counts["loops"] == 1);
  CHECK(run_pass(step, loop("_", "_", "nogo"), few).outcome.counts["loops"] == 1);
}

TEST_CASE("a Loop of no step gives its state and empty stacks") {
  for (const auto& [trips, begin] :
       std::vector<std::pair<std::string, std::string>>{{"zero", "_"}, {"many", "no"}}) {
    const PassRun run = run_pass(step, loop(trips, begin), few);
    CHECK(run.outcome.counts["loops"] == 1);
    for (const Node* node : run.after->graph.nodes()) CHECK_FALSE(node->is("Loop"));
  }
}

TEST_CASE("Loops of other numbers of steps stay") {
  for (const auto& [trips, begin] : std::vector<std::pair<std::string, std::string>>{
           {"two", "_"}, {"many", "_"}, {"one", "begin"}, {"many", "yes"}})
    CHECK(check_unchanged(step, loop(trips, begin), few).reason(step) ==
          "the number of its steps is not known to be one or none");
  // It may not even begin.
  check_unchanged(step, loop("many", "yes", "nogo"), few);
}

TEST_CASE("a Loop of no step whose stacks have no known shape stays") {
  CHECK(check_unchanged(step, R"(model ir=8 opset=17
input x: float32[n]
initializer zero: int64[] = {0}
y, z = Loop(zero, _, x) {body=graph {
  input i: int64[]
  input go: bool[]
  input v: float32[n]
  w = Relu(v)
  u = NonZero(v)
  next = Identity(go)
  output next
  output w
  output u: int64[1,?]
}}
output y: float32[n]
output z: int64[?,1,?]
)")
            .reason(step) == "it runs no step, and the shape of 'z' is not known");
}

TEST_CASE("a body that hands on what it is given") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2]
input k: float32[2]
initializer one: int64[] = {1}
y, z = Loop(one, _, x, k) {body=graph {
  input i: int64[]
  input go: bool[]
  input v: float32[2]
  input w: float32[2]
  next = Identity(go)
  output next
  output w
  output v
}}
output y: float32[2]
output z: float32[2]
)");
  CHECK(run.outcome.counts["loops"] == 1);
}

}  // namespace
}  // namespace onnxpress
