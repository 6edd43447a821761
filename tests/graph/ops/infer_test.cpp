#include "graph/ops/infer.h"

#include <doctest/doctest.h>

#include "graph/ir/parse.h"
#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct Inferred {
  std::unique_ptr<Model> model;
  TypeInference inference;

  explicit Inferred(std::string_view text, bool use_declared = true)
      : model(parse_model(text)), inference(*model, {.use_declared = use_declared}) {}

  Value* value(std::string_view name) const { return model->graph.find(name); }
  std::string type(std::string_view name) const { return to_string(inference.type(value(name))); }
};

std::string y_type(const std::string& body, std::int64_t opset = 17) {
  Inferred inferred(fmt::format("model ir=10 opset={}\n{}", opset, body));
  inferred.inference.run();
  return inferred.type("y");
}

TEST_CASE("broadcast keeps symbols and rejects contradictions") {
  const Dim batch("batch");
  CHECK(to_string(broadcast(Shape{batch, 1}, Shape{3})) == "[batch,3]");
  CHECK(to_string(broadcast(Shape{batch}, Shape{batch})) == "[batch]");
  CHECK(to_string(broadcast(Shape{batch}, Shape{Dim("other")})) == "[?]");
  CHECK(to_string(broadcast(Shape{batch}, Shape{4})) == "[4]");
  CHECK_THROWS_AS(broadcast(Shape{2}, Shape{3}), Error);
  CHECK(broadcast(Dims{0}, Dims{1}) == Dims{0});
  CHECK(normalize_axis(-1, 3) == 2);
  CHECK_THROWS_AS(normalize_axis(3, 3), Error);
  CHECK_THROWS_AS(normalize_axes({0, -1}, 1), Error);
}

TEST_CASE("a Reshape to a computed shape keeps its symbols") {
  CHECK(y_type(R"(input x: float32[batch,sequence,12,64]
initializer zero: int64[1] = {0}
initializer one: int64[] = {1}
initializer two: int64[1] = {2}
initializer minus: int64[1] = {-1}
initializer wide: int64[1] = {768}
s = Shape(x)
b = Gather(s, zero)
q = Gather(s, one)
q1 = Unsqueeze(q, zero)
target = Concat(b, q1, wide) {axis=0}
r = Reshape(x, target)
again = Shape(r)
front = Slice(again, zero, two)
open = Concat(front, minus) {axis=0}
y = Reshape(x, open)
)") == "float32[batch,sequence,768]");
  CHECK(y_type(R"(input x: float32[batch,4,8]
initializer s: int64[2] = {-1,8}
y = Reshape(x, s)
)") == "float32[?,8]");
  CHECK(y_type(R"(input x: float32[batch,4,8]
initializer s: int64[2] = {-1,32}
y = Reshape(x, s)
)") == "float32[batch,32]");
  CHECK(y_type("input x: float32[batch,3,1]\ny = Flatten(x)\n") == "float32[batch,3]");
}

TEST_CASE("arithmetic on shapes, Range, ConstantOfShape and Expand") {
  CHECK(y_type(R"(input x: float32[batch,10]
initializer one: int64[] = {1}
initializer two: int64[] = {2}
initializer zero: int64[] = {0}
initializer axes: int64[1] = {0}
initializer e2: int64[1] = {1}
s = Shape(x)
b = Gather(s, zero)
d = Gather(s, one)
h = Div(d, two)
h2 = Mul(h, one)
r = Range(zero, b, one)
c = Unsqueeze(r, axes)
e = Unsqueeze(h2, axes)
f = ConstantOfShape(e)
g = Unsqueeze(f, e2)
i = Cast(c) {to=1}
y = Mul(i, g)
)") == "float32[5,batch]");
  CHECK(y_type(R"(input x: float32[batch,1]
input like: float32[batch,7]
s = Shape(like)
y = Expand(x, s)
)") == "float32[batch,7]");
}

TEST_CASE("windows keep symbols where they keep the size") {
  CHECK(y_type(R"(input x: float32[n,3,h,w]
initializer k: float32[8,3,3,1] = zeros
y = Conv(x, k) {pads=[1,0,1,0], strides=[1,2]}
)") == "float32[n,8,h,?]");
  CHECK_THROWS_WITH_AS(y_type(R"(input x: float32[n,4,8,8]
initializer k: float32[8,3,3,3] = zeros
y = Conv(x, k) "c1"
)"),
                       "node 'c1' (Conv): expected 3 channels, found 4", Error);
}

TEST_CASE("declared types fill in for unknown operators") {
  const char* text = R"(model ir=8 opset=17 my=1
input x: float32[n,4]
t: float32[n,6] = my.Unknown(x)
y = Relu(t)
)";
  Inferred inferred(text);
  inferred.inference.run();
  CHECK(inferred.type("y") == "float32[n,6]");
  CHECK_THROWS_AS(y_type("input x: float32[2]\ny: int64[2] = Relu(x)\n"), Error);
}

TEST_CASE("concrete inputs bind symbols and override stale declarations") {
  const char* text = R"(model ir=8 opset=17 my=1
input x: float32[batch,4]
a: float32[1,4] = Relu(x)
b: float32[batch,2] = my.Unknown(a)
y = Relu(b)
s = Shape(a)
)";
  Inferred inferred(text, false);
  inferred.inference.set_input(inferred.value("x"), Type::tensor(DType::float32, Shape{5, 4}));
  inferred.inference.run();
  CHECK(inferred.type("a") == "float32[5,4]");
  CHECK(inferred.type("y") == "float32[5,2]");
  const Tensor* shape = inferred.inference.known_value(inferred.value("s"));
  REQUIRE(shape != nullptr);
  CHECK(shape->to_ints() == std::vector<std::int64_t>{5, 4});
}

TEST_CASE("an If takes the known branch, or what both have in common") {
  const std::string branches = R"({else_branch=graph {
  e = Concat(x, x) {axis=1}
  output e
}, then_branch=graph {
  t = Relu(x)
  output t
}}
)";
  CHECK(y_type("input x: float32[n,2]\ninput c: bool[]\ny = If(c) " + branches) == "float32[n,?]");
  CHECK(y_type("input x: float32[n,2]\ninitializer c: bool[] = {1}\ny = If(c) " + branches) ==
        "float32[n,2]");
  // The branch not taken contradicts itself; nobody minds.
  CHECK(y_type(R"(input x: float32[n,2]
initializer c: bool[] = {1}
initializer w: float32[3,3] = zeros
y = If(c) {else_branch=graph {
  e = MatMul(x, w)
  output e
}, then_branch=graph {
  t = Relu(x)
  output t
}}
)") == "float32[n,2]");
}

TEST_CASE("a Loop's state is generalized and its scans get an axis") {
  Inferred inferred(R"(model ir=8 opset=17
input m: int64[]
input x: float32[1,2]
state, y = Loop(m, _, x) {body=graph {
  input i: int64[]
  input going: bool[]
  input s: float32
  longer = Concat(s, x) {axis=0}
  same = Relu(x)
  output going
  output longer
  output same
}}
)");
  inferred.inference.run();
  CHECK(inferred.type("state") == "float32[?,2]");
  CHECK(inferred.type("y") == "float32[?,1,2]");
}

TEST_CASE("a call takes its types from the function's body, with its attributes") {
  Inferred inferred(R"(model ir=8 opset=17 local=1
input x: float32[n,2,3]
initializer s: int64[2] = {0,-1}
a = local.Swap(x, s) {perm=[2,0,1]}
b = local.Swap(x, s)
function local.Swap(perm=[1,0,2]) opset=17 {
  input v
  input shape
  t = Transpose(v) {perm=@perm(ints)}
  r = Reshape(t, shape)
  output r
}
)");
  inferred.inference.run();
  CHECK(inferred.type("a") == "float32[3,?]");
  CHECK(inferred.type("b") == "float32[2,?]");
}

TEST_CASE("infer_types fills in the model and keeps what interfaces declare") {
  auto model = parse_model(R"(model ir=8 opset=17 my=1
input x: float32[batch,4]
initializer w: float32[4,3] = zeros
h = MatMul(x, w)
r = Relu(h)
u = my.Unknown(r)
l = Neg(h)
output r: float32[rows,3]
output u
output l: float32
)");
  CHECK(infer_types(*model) == 2);
  CHECK(to_string(model->graph.find("l")->type) == "float32");
  CHECK(to_string(model->graph.find("h")->type) == "float32[batch,3]");
  CHECK(to_string(model->graph.find("r")->type) == "float32[rows,3]");
}

TEST_CASE("attributes of a wrong kind are errors that name node and attribute") {
  auto model = parse_model(
      "model ir=8 opset=17\ninput x: float32[2]\ny = Softmax(x) {axis=\"one\"} \"s1\"\n");
  const Node& node = *model->graph.find("y")->producer();
  CHECK_THROWS_WITH_AS(
      get_int(node, "axis", 0),
      "attribute 'axis' of node 's1' (Softmax): expected an integer, found a string", Error);
  CHECK(get_int(node, "other", 7) == 7);
  CHECK_THROWS_AS(require_int(node, "other"), Error);
}

TEST_CASE("rows are found by domain and version") {
  const OpRegistry& registry = operators();
  CHECK(registry.find("", "Gelu", 19) == nullptr);
  CHECK(registry.find("", "Gelu", 20) != nullptr);
  CHECK(registry.find("ai.onnx", "Conv", 1) == registry.find("", "Conv", 27));
  CHECK(registry.find("my", "Conv", 1) == nullptr);
  OpRegistry own;
  own.add(OpDef{.name = "A", .since = 5});
  own.add(OpDef{.name = "A", .until = 4});
  CHECK(own.find("", "A", 4)->until == 4);
  CHECK(own.find("", "A", 9)->since == 5);
  CHECK_THROWS_AS(own.add(OpDef{.name = "A", .since = 4}), Error);
  for (const OpDef* op : registry.all()) {
    CHECK_MESSAGE(bool(op->infer), op->name);
    CHECK_MESSAGE(bool(op->prepare), op->name);
  }
}

}  // namespace
}  // namespace onnxpress
