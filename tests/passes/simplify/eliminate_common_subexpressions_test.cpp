#include <doctest/doctest.h>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "eliminate_common_subexpressions";

TEST_CASE("equal nodes are computed once, and so is what they feed") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17
input x: float32[2,3]
a = Relu(x)
b = Relu(x)
c = Transpose(a) {perm=[1,0]}
d = Transpose(b) {perm=[1,0]}
y = MatMul(b, c)
z = MatMul(a, d)
w = Add(y, z)
output w: float32[2,2]
)",
                                 R"(model ir=8 opset=17
input x: float32[2,3]
a = Relu(x)
c = Transpose(a) {perm=[1,0]}
y = MatMul(a, c)
w = Add(y, y)
output w: float32[2,2]
)");
  CHECK(run.outcome.counts["nodes"] == 3);
}

TEST_CASE("operands of commutative operators go in either order, others do not") {
  check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
input v: float32[2]
a = Add(x, v)
b = Add(v, x)
y = Mul(a, b)
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
input v: float32[2]
a = Add(x, v)
y = Mul(a, a)
output y: float32[2]
)");
  check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
input v: float32[2]
a = Sub(x, v)
b = Sub(v, x)
y = Mul(a, b)
output y: float32[2]
)");
}

TEST_CASE("other attributes, inputs, domains or outputs are other expressions") {
  check_unchanged(step, R"(model ir=8 opset=17 com.microsoft=1
input x: float32[2,3]
a = LeakyRelu(x) {alpha=0.1}
b = LeakyRelu(x) {alpha=0.2}
c = Softmax(a) {axis=0}
d = Softmax(a) {axis=1}
e = com.microsoft.Gelu(b)
f, g = Split(c) {axis=0}
h, i, j = Split(c) {axis=1}
k = Add(d, e)
output k: float32[2,3]
output f: float32[1,3]
output h: float32[2,1]
)");
}

TEST_CASE("tensors of attributes are compared by their contents") {
  const auto text = [](int seed) {
    return fmt::format(R"(model ir=8 opset=17
input x: float32[100]
a = Constant() {{value=float32[100] random(1)}}
b = Constant() {{value=float32[100] random({})}}
c = Add(x, a)
d = Add(x, b)
y = Mul(c, d)
output y: float32[100]
)",
                       seed);
  };
  CHECK(run_pass(step, text(1)).outcome.counts["nodes"] == 2);
  check_unchanged(step, text(2));
}

TEST_CASE("graph outputs keep their names") {
  SUBCASE("one of the two is an output: the other takes its name") {
    check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x)
y = Relu(x)
z = Neg(a)
output y: float32[2]
output z: float32[2]
)",
               R"(model ir=8 opset=17
input x: float32[2]
y = Relu(x)
z = Neg(y)
output y: float32[2]
output z: float32[2]
)");
  }
  SUBCASE("the first is the output") {
    check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
y = Relu(x)
a = Relu(x)
z = Neg(a)
output y: float32[2]
output z: float32[2]
)",
               R"(model ir=8 opset=17
input x: float32[2]
y = Relu(x)
z = Neg(y)
output y: float32[2]
output z: float32[2]
)");
  }
  SUBCASE("both are outputs") {
    const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
y = Relu(x)
z = Relu(x)
output y: float32[2]
output z: float32[2]
)");
    CHECK(run.reason(step) == "its output 'z' is a graph output, and so would be 'y', the same");
  }
  SUBCASE("two outputs and one that is none") {
    const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x)
y = Relu(x)
z = Relu(x)
w = Neg(a)
output y: float32[2]
output z: float32[2]
output w: float32[2]
)");
    CHECK(run.outcome.counts["nodes"] == 1);
    CHECK(run.after->graph.node_count() == 3);
  }
}

TEST_CASE("the shorter name stays") {
  check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
a_rather_long_name = Relu(x)
b = Relu(x)
y = Add(a_rather_long_name, b)
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
b = Relu(x)
y = Add(b, b)
output y: float32[2]
)");
}

TEST_CASE("a body reads what the graph around it has computed, not what comes later") {
  check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
a = Relu(x)
b = If(c) {else_branch=graph {
  e = Exp(x)
  f = Neg(e)
  output f
}, then_branch=graph {
  t = Relu(x)
  u = Exp(x)
  v = Mul(t, u)
  output v
}}
d = Exp(x)
y = Add(b, a)
z = Mul(y, d)
output z: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
a = Relu(x)
b = If(c) {else_branch=graph {
  e = Exp(x)
  f = Neg(e)
  output f
}, then_branch=graph {
  u = Exp(x)
  v = Mul(a, u)
  output v
}}
d = Exp(x)
y = Add(b, a)
z = Mul(y, d)
output z: float32[2]
)");
}

TEST_CASE("a body's output stays the body's") {
  const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
a = Relu(x)
b = If(c) {else_branch=graph {
  e = Relu(x)
  output e
}, then_branch=graph {
  t = Neg(x)
  output t
}}
y = Add(b, a)
output y: float32[2]
)");
  CHECK(run.reason(step) == "its output 'e' is a graph output, and so would be 'a', the same");
}

TEST_CASE("nodes with equal bodies are equal, whatever the names inside") {
  const auto text = [](std::string_view last) {
    return fmt::format(R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
a = If(c) {{else_branch=graph {{
  initializer w: float32[2] = {{1,2}}
  e = Add(x, w)
  output e
}}, then_branch=graph {{
  t = Neg(x)
  output t
}}}}
b = If(c) {{else_branch=graph {{
  initializer v: float32[2] = {{1,{}}}
  f = Add(x, v)
  output f
}}, then_branch=graph {{
  u = Neg(x)
  output u
}}}}
y = Mul(a, b)
output y: float32[2]
)",
                       last);
  };
  const PassRun run = run_pass(step, text("2"));
  CHECK(run.outcome.counts["nodes"] == 1);
  CHECK(run.after->graph.node_count() == 2);
  check_unchanged(step, text("3"));
}

TEST_CASE("functions: bodies too, and calls whose operators are all known") {
  check_pass(step, R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.Once(x)
b = local.Once(x)
y = Add(a, b)
output y: float32[2]
function local.Once() opset=17 {
  input v
  r = Abs(v)
  s = Abs(v)
  t = Add(r, s)
  output t
}
)",
             R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.Once(x)
y = Add(a, a)
output y: float32[2]
function local.Once() opset=17 {
  input v
  r = Abs(v)
  t = Add(r, r)
  output t
}
)");
}

TEST_CASE("what may be random is computed as often as it is asked for") {
  const auto count = [](std::string_view text) {
    const std::unique_ptr<Model> model = parse_model(text);
    const Pipeline pipeline = Pipeline::parse(step);
    ThreadPool pool(1);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool};
    return pipeline.steps[0].pass->run(*model, context).counts["nodes"].get<int>();
  };
  CHECK(count(R"(model ir=8 opset=17
input x: float32[2]
a = RandomNormalLike(x)
b = RandomNormalLike(x)
c = Dropout(x)
d = Dropout(x)
e = Unknown(x)
f = Unknown(x)
y = Sum(a, b, c, d, e, f)
output y: float32[2]
)") == 0);
  CHECK(count(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.Noise(x)
b = local.Noise(x)
y = Add(a, b)
output y: float32[2]
function local.Noise() opset=17 {
  input v
  r = RandomUniformLike(v)
  output r
}
)") == 0);
}

}  // namespace
}  // namespace onnxpress
