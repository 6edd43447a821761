#include <doctest/doctest.h>

#include "graph/onnx/writer.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "deduplicate_initializers";

TEST_CASE("of equal constants the one with the shortest name stays") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer long: float32[2] = {1,2}
initializer w: float32[2] = {1,2}
initializer other: float32[2] = {1,3}
a = Add(x, long)
b = Mul(a, w)
y = Add(b, other)
output y: float32[2]
)",
                                 R"(model ir=8 opset=17
input x: float32[2]
initializer w: float32[2] = {1,2}
initializer other: float32[2] = {1,3}
a = Add(x, w)
b = Mul(a, w)
y = Add(b, other)
output y: float32[2]
)");
  CHECK(run.outcome.counts["initializers"] == 1);
  CHECK(run.outcome.counts["bytes"] == 8);
}

TEST_CASE("other dims, types or bits are other constants") {
  check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
initializer a: float32[2] = {0,1}
initializer b: float32[1,2] = {0,1}
initializer c: float32[2] = {-0.0,1}
initializer i: int64[2] = {1,2}
initializer j: int32[2] = {1,2}
d = Add(x, a)
e = Add(d, b)
f = Add(e, c)
g = Cast(i) {to=1}
h = Cast(j) {to=1}
k = Add(g, h)
y = Add(f, k)
output y: float32[1,2]
)");
}

TEST_CASE("bodies read the constant of the graph around them") {
  check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
initializer w: float32[2] = {1,2}
a = Add(x, w)
y = If(c) {else_branch=graph {
  initializer v: float32[2] = {1,2}
  e = Add(a, v)
  output e
}, then_branch=graph {
  initializer u: float32[2] = {1,2}
  t = Mul(a, u)
  output t
}}
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
initializer w: float32[2] = {1,2}
a = Add(x, w)
y = If(c) {else_branch=graph {
  e = Add(a, w)
  output e
}, then_branch=graph {
  t = Mul(a, w)
  output t
}}
output y: float32[2]
)");
}

constexpr std::string_view siblings = R"(
input x: float32[20]
input c: bool[]
y = If(c) {else_branch=graph {
  initializer v: float32[20] = random(1)
  e = Add(x, v)
  output e
}, then_branch=graph {
  initializer u: float32[20] = random(1)
  t = Mul(x, u)
  output t
}}
output y: float32[20]
)";

TEST_CASE("constants of sibling bodies move to the graph around both") {
  const PassRun run = check_pass(step, "model ir=8 opset=17" + std::string(siblings),
                                 R"(model ir=8 opset=17
input x: float32[20]
input c: bool[]
initializer v_1: float32[20] = random(1)
y = If(c) {else_branch=graph {
  e = Add(x, v_1)
  output e
}, then_branch=graph {
  t = Mul(x, v_1)
  output t
}}
output y: float32[20]
)");
  CHECK(run.outcome.counts["initializers"] == 1);
  CHECK(run.outcome.counts["bytes"] == 80);
  CHECK(serialized_size(*run.after) < serialized_size(*run.before));
}

TEST_CASE("up to IR 3 constants of sibling bodies stay") {
  const PassRun run = check_unchanged(step, "model ir=3 opset=8" + std::string(siblings));
  CHECK(run.reason(step) ==
        "up to IR version 3 it cannot move to the graph around it and its equals");
}

TEST_CASE("graph outputs and inputs with defaults stay") {
  const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
input d: float32[2] = {1,2}
initializer y: float32[2] = {1,2}
initializer z: float32[2] = {1,2}
w = Add(x, d)
output w: float32[2]
output y: float32[2]
output z: float32[2]
)");
  CHECK(run.reason(step) == "it is a graph output, as 'y', its equal, may not be");
}

TEST_CASE("an output stands for its equals, unless its name would grow the file") {
  check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
initializer w: float32[2] = {1,2}
initializer y: float32[2] = {1,2}
z = Add(x, w)
output z: float32[2]
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
initializer y: float32[2] = {1,2}
z = Add(x, y)
output z: float32[2]
output y: float32[2]
)");
  const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
initializer w: float32[1] = {1}
initializer an_output_with_a_name: float32[1] = {1}
z = Add(x, w)
output z: float32[2]
output an_output_with_a_name: float32[1]
)");
  CHECK(run.reason(step) == "its readers would name 'an_output_with_a_name': the file would grow");
}

TEST_CASE("strings and constants of function bodies") {
  CHECK(run_pass(step, R"(model ir=8 opset=17 local=1
input x: float32[2]
y = local.Twice(x)
output y: float32[2]
function local.Twice() opset=17 {
  input v
  initializer a: float32[2] = {1,2}
  initializer b: float32[2] = {1,2}
  r = Add(v, a)
  s = Add(r, b)
  output s
}
)")
            .outcome.counts["initializers"] == 1);
}

}  // namespace
}  // namespace onnxpress
