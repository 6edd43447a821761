#include <doctest/doctest.h>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("nodes, constants and functions without readers go, inputs stay") {
  const PassRun run = check_pass("eliminate_dead_code", R"(model ir=8 opset=17 local=1
input x: float32[2]
input unread: float32[3]
initializer w: float32[2] = {1,2}
initializer dead: float32[2] = {1,2}
a = Add(x, w)
b = Neg(a)
c = local.Once(b)
y = Relu(a)
output y: float32[2]
function local.Once() opset=17 local=1 {
  input v
  r = local.Deep(v)
  output r
}
function local.Deep() opset=17 {
  input v
  r = Abs(v)
  output r
}
)",
                                 R"(model ir=8 opset=17 local=1
input x: float32[2]
input unread: float32[3]
initializer w: float32[2] = {1,2}
a = Add(x, w)
y = Relu(a)
output y: float32[2]
)");
  CHECK(run.outcome.counts["nodes"] == 2);
  CHECK(run.outcome.counts["initializers"] == 1);
  CHECK(run.outcome.counts["functions"] == 2);
}

TEST_CASE("functions that functions in use call stay, also those called in nested graphs") {
  check_unchanged("eliminate_dead_code", R"(model ir=8 opset=17 local=1
input x: float32[2]
input c: bool[]
y = If(c) {then_branch=graph {
  t = local.Once(x)
  output t
}, else_branch=graph {
  e = Neg(x)
  output e
}}
output y: float32[2]
function local.Once() opset=17 local=1 {
  input v
  r = local.Deep(v)
  output r
}
function local.Deep() opset=17 {
  input v
  r = Abs(v)
  output r
}
)");
}

TEST_CASE("dead nodes of nested graphs go, and what only they read around them") {
  check_pass("eliminate_dead_code", R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
initializer w: float32[2] = {1,2}
outer = Add(x, w)
y = If(c) {then_branch=graph {
  initializer k: float32[2] = {1,2}
  dead = Add(outer, k)
  t = Abs(x)
  output t
}, else_branch=graph {
  e = Neg(x)
  output e
}}
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
y = If(c) {else_branch=graph {
  e = Neg(x)
  output e
}, then_branch=graph {
  t = Abs(x)
  output t
}}
output y: float32[2]
)");
}

TEST_CASE("a node stays for any of its outputs, an initializer as output too") {
  check_unchanged("eliminate_dead_code", R"(model ir=8 opset=17
input x: float32[4]
initializer split: int64[2] = {1,3}
initializer k: float32[2] = {1,2}
a, b = Split(x, split) {axis=0}
y = Neg(b)
output y: float32[3]
output k: float32[2]
)");
}

TEST_CASE("a whole dead If goes") {
  const PassRun run = run_pass("eliminate_dead_code", R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
y = Neg(x)
z = If(c) {then_branch=graph {
  t = Abs(x)
  output t
}, else_branch=graph {
  e = Neg(x)
  output e
}}
output y: float32[2]
)");
  CHECK(run.outcome.changed);
  CHECK(run.after->graph.node_count() == 1);
  CHECK(run.after->graph.inputs().size() == 2);
}

}  // namespace
}  // namespace onnxpress
