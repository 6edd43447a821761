#include <doctest/doctest.h>

#include "graph/onnx/writer.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "simplify_shapes";

std::vector<std::int64_t> constant_input(const Model& model, std::string_view output,
                                         std::size_t input) {
  const Value* value = model.graph.find(output)->producer()->input(input);
  return value->constant() ? value->constant()->to_ints() : std::vector<std::int64_t>{};
}

TEST_CASE("a Reshape of dims read from its data copies them") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,seq,12]
initializer zero: int64[1] = {0}
initializer one: int64[1] = {1}
initializer index: int64[] = {1}
initializer heads: int64[2] = {3,4}
shape = Shape(x)
b = Gather(shape, zero)
s = Gather(shape, index)
t = Unsqueeze(s, zero)
target = Concat(b, t, heads) {axis=0}
r = Reshape(x, target)
y = Relu(r)
output y: float32[batch,seq,3,4]
)");
  CHECK(run.outcome.counts["constant_targets"] == 1);
  CHECK(run.after->graph.node_count() == 2);
  CHECK(constant_input(*run.after, "r", 1) == std::vector<std::int64_t>{0, 0, 3, 4});
  CHECK(serialized_size(*run.after) < serialized_size(*run.before));
}

TEST_CASE("dims are followed to other tensors by their symbols") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,seq,12]
initializer zero: int64[1] = {0}
initializer two: int64[1] = {2}
initializer rest: int64[1] = {-1}
a = Transpose(x) {perm=[2,0,1]}
b = Transpose(a) {perm=[1,2,0]}
e = Exp(b)
shape = Shape(e)
front = Slice(shape, zero, two)
target = Concat(front, rest) {axis=0}
r = Reshape(x, target)
y = Relu(r)
output y: float32[batch,seq,12]
)");
  CHECK(constant_input(*run.after, "r", 1) == std::vector<std::int64_t>{0, 0, -1});
}

TEST_CASE("dims without a name are followed to where they were read") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[?,?,12]
initializer zero: int64[1] = {0}
initializer one: int64[1] = {1}
initializer rest: int64[1] = {-1}
shape = Shape(x)
b = Gather(shape, zero)
s = Gather(shape, one)
target = Concat(b, s, rest) {axis=0}
e = Exp(x)
r = Reshape(e, target)
y = Relu(r)
output y: float32[?,?,12]
)");
  CHECK(constant_input(*run.after, "r", 1) == std::vector<std::int64_t>{0, 0, -1});
  // Axes swapped: neither is the data's at that place.
  const PassRun swapped = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[?,?,12]
initializer zero: int64[1] = {0}
initializer one: int64[1] = {1}
initializer rest: int64[1] = {12}
shape = Shape(x)
b = Gather(shape, zero)
s = Gather(shape, one)
target = Concat(s, b, rest) {axis=0}
r = Reshape(x, target)
output r: float32[?,?,12]
)");
  CHECK(swapped.reason(step) == "dims 0 and 1 of its target are neither numbers nor the data's");
}

TEST_CASE("one unknown dim beside numbers is inferred, beside copies it is not") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,12]
initializer two: int64[1] = {2}
initializer six: int64[1] = {6}
initializer zero: int64[1] = {0}
shape = Shape(x)
b = Gather(shape, zero)
n = Mul(b, two)
target = Concat(n, six) {axis=0}
r = Reshape(x, target)
y = Relu(r)
output y: float32[?,6]
)");
  CHECK(constant_input(*run.after, "r", 1) == std::vector<std::int64_t>{-1, 6});

  const PassRun beside = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[batch,seq,w]
initializer zero: int64[1] = {0}
initializer one: int64[1] = {1}
initializer two: int64[1] = {2}
shape = Shape(x)
b = Gather(shape, zero)
s = Gather(shape, one)
t = Gather(shape, two)
n = Mul(s, t)
target = Concat(b, n) {axis=0}
r = Reshape(x, target)
output r: float32[batch,?]
)");
  CHECK(
      beside.reason(step) ==
      "dim 1 of its target is not known, and cannot be inferred beside copied ones that may be 0");

  const PassRun inferred = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[batch,12]
initializer two: int64[1] = {2}
initializer rest: int64[1] = {-1}
initializer zero: int64[1] = {0}
shape = Shape(x)
b = Gather(shape, zero)
n = Mul(b, two)
target = Concat(n, rest) {axis=0}
r = Reshape(x, target)
output r: float32[?,?]
)");
  CHECK(inferred.reason(step) == "dim 0 of its target is not known, and another is -1 already");
}

TEST_CASE("a Reshape that takes 0 for a dim copies once its target is constant") {
  const std::string_view text = R"(model ir=8 opset=17
input x: float32[batch,12]
initializer zero: int64[1] = {0}
initializer rest: int64[2] = {3,4}
shape = Shape(x)
b = Gather(shape, zero)
target = Concat(b, rest) {axis=0}
r = Reshape(x, target) {allowzero=1} "view"
y = Relu(r)
output y: float32[batch,3,4]
)";
  const PassRun run = run_pass(step, text);
  REQUIRE(run.after->graph.node_count() == 2);
  const Node& reshape = *run.after->graph.nodes()[0];
  REQUIRE(reshape.input(1)->constant());
  CHECK(reshape.input(1)->constant()->to_ints() == std::vector<std::int64_t>{0, 3, 4});
  CHECK(reshape.attributes().empty());
  CHECK(reshape.name == "view");
  CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);

  const PassRun zero = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,0]
initializer zero: int64[1] = {0}
shape = Shape(x)
b = Gather(shape, zero)
target = Concat(b, zero) {axis=0}
r = Reshape(x, target) {allowzero=1}
output r: float32[batch,0]
)");
  CHECK(zero.outcome.counts["constant_targets"] == 0);
  CHECK(zero.reason(step) == "a dim of its target is 0, which is not a copy here");
}

TEST_CASE("a target that something else reads stays: a constant would come on top") {
  const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[batch,12]
initializer zero: int64[1] = {0}
initializer rest: int64[2] = {3,4}
shape = Shape(x)
b = Gather(shape, zero)
target = Concat(b, rest) {axis=0}
y = Reshape(x, target)
output y: float32[batch,3,4]
output target: int64[3]
)");
  CHECK(run.reason(step) == "a constant in place of 'target' would grow the file");
}

TEST_CASE("Expand by dims of the data") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,1,w]
initializer zero: int64[1] = {0}
initializer two: int64[1] = {2}
initializer five: int64[1] = {5}
shape = Shape(x)
b = Gather(shape, zero)
w = Gather(shape, two)
target = Concat(five, b, five, w) {axis=0}
e = Expand(x, target)
y = Relu(e)
output y: float32[5,batch,5,w]
)");
  CHECK(constant_input(*run.after, "e", 1) == std::vector<std::int64_t>{5, 1, 5, 1});
  const PassRun other = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[1,w]
input v: float32[batch]
initializer one: int64[1] = {1}
n = Shape(v)
target = Concat(n, one) {axis=0}
e = Expand(x, target)
output e: float32[batch,w]
)");
  CHECK(other.reason(step) == "dim 0 of its target is neither a number nor the data's");
}

TEST_CASE("Expand by a target whose -1 is replaced") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,1,8]
initializer zero: int64[1] = {0}
initializer five: int64[2] = {5,-1}
initializer ones: int64[3] = {1,1,1}
initializer mark: int64[3] = {-1,-1,-1}
shape = Shape(x)
b = Gather(shape, zero)
target = Concat(b, five) {axis=0}
same = Equal(target, mark)
chosen = Where(same, ones, target)
e = Expand(x, chosen)
y = Relu(e)
output y: float32[batch,5,8]
)");
  CHECK(constant_input(*run.after, "e", 1) == std::vector<std::int64_t>{1, 5, 1});
  CHECK(run.after->graph.node_count() == 2);
}

TEST_CASE("a choice that a dim may decide stays") {
  check_unchanged(step, R"(model ir=8 opset=17
input x: float32[batch,1]
initializer zero: int64[1] = {0}
initializer four: int64[1] = {4}
initializer one: int64[1] = {1}
shape = Shape(x)
b = Gather(shape, zero)
same = Equal(b, four)
n = Where(same, one, b)
target = Concat(n, four) {axis=0}
e = Expand(x, target)
output e: float32[batch,4]
)");
}

TEST_CASE("Slice to the end of an axis") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,seq]
initializer one: int64[1] = {1}
initializer minus: int64[1] = {-1}
shape = Shape(x)
n = Gather(shape, one)
s = Slice(x, one, n, minus, one)
y = Relu(s)
output y: float32[batch,?]
)");
  CHECK(constant_input(*run.after, "s", 2) ==
        std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::max()});
  const PassRun other = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[batch,seq]
initializer one: int64[1] = {1}
initializer zero: int64[1] = {0}
shape = Shape(x)
n = Gather(shape, zero)
s = Slice(x, zero, n, one, one)
output s: float32[batch,?]
)");
  CHECK(other.reason(step) == "its end on axis 1 is neither a number nor the axis' size");
  CHECK(check_unchanged(step, R"(model ir=8 opset=17
input x: float32[batch,seq]
input axes: int64[1]
initializer one: int64[1] = {1}
initializer zero: int64[1] = {0}
shape = Shape(x)
n = Gather(shape, zero)
s = Slice(x, zero, n, axes)
output s: float32[?,?]
)",
                        {.seed = 7,
                         .calibration = nullptr,
                         .training = nullptr,
                         .input_ranges = {{"axes", {0, 0}}}})
            .reason(step) == "its axes or steps are not known");
}

TEST_CASE("what is not known of lengths and ranks") {
  CHECK(check_unchanged(step, R"(model ir=8 opset=17
input x: float32[4]
input n: int64[k]
y = ConstantOfShape(n)
z = Expand(x, n)
output y: float32
output z: float32
)",
                        {.seed = 7,
                         .calibration = nullptr,
                         .training = nullptr,
                         .input_ranges = {{"n", {4, 4}}}})
            .reason(step) == "the length of 'n' is not known");
}

TEST_CASE("computations of the same dims of different tensors are done once") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[batch,seq]
initializer two: int64[1] = {2}
initializer zero: int64[] = {0}
initializer axis: int64[1] = {0}
a = Exp(x)
s = Shape(x)
t = Shape(a)
u = Gather(s, zero)
v = Gather(t, zero)
p = Unsqueeze(u, axis)
q = Unsqueeze(v, axis)
m = Mul(p, two)
n = Mul(two, q)
k = Mul(q, two)
c = ConstantOfShape(m)
d = ConstantOfShape(n)
e = ConstantOfShape(k)
y = Sum(c, d, e)
output y: float32[?]
output a: float32[batch,seq]
)");
  // t, v, q and k go; n is not m, as far as keys tell.
  CHECK(run.outcome.counts["merged"].get<int>() >= 3);
  CHECK(run.after->graph.node_count() == 10);
}

TEST_CASE("symbols that inputs of bodies declare say nothing") {
  check_unchanged(step, R"(model ir=8 opset=17
input x: float32[n]
input m: int64[]
s0 = Shape(x)
c0 = ConstantOfShape(s0)
y = Loop(m, _, x) {body=graph {
  input i: int64[]
  input go: bool[]
  input v: float32[n]
  s = Shape(v)
  c = ConstantOfShape(s)
  w = Concat(v, c) {axis=0}
  next = Identity(go)
  output next
  output w
}}
z = Shape(y)
d = ConstantOfShape(z)
output c0: float32[?]
output d: float32[?]
)",
                  {.seed = 7,
                   .calibration = nullptr,
                   .training = nullptr,
                   .input_ranges = {{"m", {0, 3}}}});
}

TEST_CASE("bodies read the dims that the graph around them has computed") {
  const PassRun run = run_pass(step, R"(model ir=8 opset=17
input x: float32[n]
input c: bool[]
s = Shape(x)
o = ConstantOfShape(s)
y = If(c) {then_branch=graph {
  a = Exp(x)
  t = Shape(a)
  p = ConstantOfShape(t)
  q = Add(a, p)
  output q
}, else_branch=graph {
  e = Exp(x)
  output e
}}
z = Add(y, o)
output z: float32[n]
)");
  CHECK(run.outcome.counts["merged"] == 1);
}

TEST_CASE("declared types of interior values are not believed") {
  const PassRun run = check_unchanged(step, R"(model ir=8 opset=17
input x: float32[a,b]
initializer zero: int64[1] = {0}
initializer rest: int64[1] = {-1}
v: float32[a,b] = Transpose(x)
s = Shape(v)
n = Gather(s, zero)
target = Concat(n, rest) {axis=0}
y = Reshape(x, target)
output y: float32[?,?]
)");
  CHECK(run.reason(step) == "dim 0 of its target is not known, and another is -1 already");
}

}  // namespace
}  // namespace onnxpress
