#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::size_t count(const Model& model, std::string_view op) {
  return static_cast<std::size_t>(
      std::ranges::count_if(model.graph.nodes(), [&](const Node* node) { return node->is(op); }));
}

// Why a node stayed, from the table of the report.
std::string why(const PassRun& run, const std::string& node) {
  for (const Json& row : run.outcome.layers)
    if (row["node"] == node) return row["why"].is_null() ? "" : row["why"].get<std::string>();
  return "no such row";
}

bool has_note(const PassRun& run, std::string_view text) {
  return std::ranges::any_of(run.outcome.notes, [&](const std::string& note) {
    return note.find(text) != std::string::npos;
  });
}

const Tensor& constant(const Model& model, std::string_view name) {
  const Value* value = model.graph.find(name);
  REQUIRE(value != nullptr);
  REQUIRE(value->constant() != nullptr);
  return *value->constant();
}

std::string mlp(int opset, const std::string& middle = "c = Relu(b) \"act\"\n") {
  return "model ir=8 opset=" + std::to_string(opset) +
         "\ninput x: float32[n,32]\ninitializer w: float32[32,32] = random(1)\ninitializer v: "
         "float32[32,8] = random(2)\n"
         "initializer k: float32[32] = random(3)\na = MatMul(x, w) \"first\"\nb = Add(a, k) "
         "\"bias\"\n" +
         middle + "y = MatMul(c, v) \"last\"\noutput y: float32[n,8]\n";
}

TEST_CASE("neighbours share their Casts, inputs and outputs stay float32, weights halve") {
  const PassRun run = run_pass("convert_float", mlp(13));
  CHECK(run.outcome.changed);
  CHECK(count(*run.after, "Cast") == 2);
  CHECK(run.outcome.counts["converted"] == 4);
  CHECK(run.outcome.counts["left"] == 0);
  CHECK(constant(*run.after, "w").dtype() == DType::float16);
  CHECK(constant(*run.after, "k").dtype() == DType::float16);
  CHECK(has_note(run, "RANGES FROM GENERATED INPUTS"));
  CHECK(run.outcome.min_snr_db == 30);
  CHECK_FALSE(run_pass("convert_float", run.after->clone()).outcome.changed);
}

TEST_CASE("bfloat16 where the opset has it") {
  const PassRun run = run_pass("convert_float{type=bf16}", mlp(13));
  CHECK(constant(*run.after, "w").dtype() == DType::bfloat16);
  CHECK(run.outcome.min_snr_db == 15);
  // MatMul takes it from opset 13 on.
  const PassRun old = check_unchanged("convert_float{type=bf16}", mlp(12));
  CHECK(old.reason("convert_float").find("takes bfloat16 from opset 13 on, the model has 12") !=
        std::string::npos);
  CHECK(has_note(old, "stay float32 because the model's opset has no bfloat16 for them: run "
                      "upgrade_opset{target=13} before"));
}

TEST_CASE("operators without a form get Casts around them") {
  const PassRun run = run_pass("convert_float", mlp(13, "c = Celu(b) \"act\"\n"));
  CHECK(count(*run.after, "Cast") == 4);
  CHECK(why(run, "act").find("Celu stays float32: it has no form for float16") == 0);
}

TEST_CASE("values beyond the range stay float32, with the nodes that make and read them") {
  const std::string big =
      "initializer s: float32[] = {20000}\ninitializer r: float32[] = {0.00005}\n";
  const std::string text = mlp(13, "d = Mul(b, s) \"up\"\nc = Mul(d, r) \"down\"\n");
  const PassRun run = run_pass(
      "convert_float", text.substr(0, text.find("a = ")) + big + text.substr(text.find("a = ")));
  CHECK(why(run, "up").find("'d' reaches ") == 0);
  CHECK(why(run, "down").find("'d' reaches ") == 0);
  CHECK(why(run, "first").empty());
  CHECK(why(run, "last").empty());
  CHECK(has_note(run, "node 'up' (Mul) stays float32: 'd' reaches"));
  CHECK(count(*run.after, "Cast") == 4);
}

TEST_CASE("constants that do not fit") {
  const auto with = [](const std::string& number) {
    const std::string text = mlp(13, "c = Max(b, s) \"limit\"\n");
    return text.substr(0, text.find("a = ")) + "initializer s: float32[] = {" + number + "}\n" +
           text.substr(text.find("a = "));
  };
  CHECK(why(run_pass("convert_float", with("-1e9")), "limit")
            .find("constant 's' holds 1e+09, beyond 32752") == 0);
  CHECK(why(run_pass("convert_float", with("1e-12")), "limit")
            .find("constant 's' is too small for float16") == 0);
  CHECK(why(run_pass("convert_float{type=bf16}", with("1e-12")), "limit").empty());
  CHECK(why(run_pass("convert_float", with("0.5")), "limit").empty());
}

TEST_CASE("nodes that are to be kept, and a weight that a kept and a converted node read") {
  const PassRun run = run_pass("convert_float{keep=last}", mlp(13));
  CHECK(why(run, "last") == "selected by keep");
  CHECK(constant(*run.after, "v").dtype() == DType::float32);
  const PassRun shared = run_pass("convert_float{keep=second}", R"(model ir=8 opset=13
input x: float32[n,32]
initializer w: float32[32,32] = random(1)
initializer v: float32[32,64] = random(2)
a = MatMul(x, w) "first"
b = MatMul(a, w) "second"
y = MatMul(b, v) "third"
output y: float32[n,64]
)");
  // Once, as float32, with a Cast.
  CHECK(constant(*shared.after, "w").dtype() == DType::float32);
  CHECK(constant(*shared.after, "v").dtype() == DType::float16);
  CHECK(count(*shared.after, "Cast") == 5);
}

TEST_CASE("shape computations, integers, scales of Resize and subgraphs stay as they are") {
  const PassRun run = run_pass("convert_float", R"(model ir=8 opset=13
input x: float32[1,4,8,8]
input c: bool[]
initializer w: float32[16,4,3,3] = random(1)
initializer s: float32[4] = {1,1,2,2}
initializer half: float32[] = {0.5}
initializer i: int64[1] = {0}
a = Conv(x, w) {pads=[1,1,1,1]} "conv"
b = Resize(a, _, s) {mode="nearest"} "resize"
d = Shape(b) "shape"
e = Cast(d) {to=1} "to_float"
f = Mul(e, half) "scale"
g = Cast(f) {to=7} "to_int"
h = ConstantOfShape(g) "zeros"
r = ReduceMax(h) {keepdims=0} "max"
m = ArgMax(b) {axis=1, keepdims=0} "arg"
z = If(c) {then_branch=graph {
  p = Relu(b)
  output p
}, else_branch=graph {
  q = Neg(b)
  output q
}} "branch"
y = Add(z, r) "sum"
output y: float32[1,16,16,16]
output m: int64[1,16,16]
)");
  CHECK(why(run, "conv").empty());
  CHECK(why(run, "resize").empty());
  CHECK(why(run, "shape").empty());
  CHECK(why(run, "scale") == "it computes shapes");
  CHECK(constant(*run.after, "s").dtype() == DType::float32);
  CHECK(run.after->graph.find("m")->type.elem == DType::int64);
}

TEST_CASE("a Transpose that the reference runtime cannot fuse stays float32") {
  const auto text = [](const std::string& perm) {
    return "model ir=8 opset=13\ninput x: float32[4,4,64]\ninitializer w: float32[64,64] = "
           "random(1)\n"
           "a = MatMul(x, w) \"first\"\nb = Transpose(a) {perm=" +
           perm + "} \"turn\"\ny = MatMul(b, w) \"last\"\noutput y: float32[?,?,?]\n";
  };
  CHECK(why(run_pass("convert_float", text("[1,0,2]")), "turn").find("ONNX Runtime") == 0);
  CHECK(why(run_pass("convert_float", text("[0,1,2]")), "turn").empty());
}

TEST_CASE("what would not shrink is left") {
  const PassRun run = check_unchanged(
      "convert_float",
      "model ir=8 opset=13\ninput x: float32[2,4]\n"
      "initializer w: float32[4,4] = random(1)\ny = MatMul(x, w)\noutput y: float32[2,4]\n");
  CHECK(has_note(run, "left as it was: 32 bytes of weights would go, 2 Casts come"));
  CHECK(has_note(
      check_unchanged(
          "convert_float",
          "model ir=8 opset=13\ninput x: float32[2,4]\ny = Relu(x)\noutput y: float32[2,4]\n"),
      "no node to convert"));
}

TEST_CASE("Constant nodes, several readers and outputs inside") {
  const PassRun run = run_pass("convert_float", R"(model ir=8 opset=13
input x: float32[2,64]
initializer w: float32[64,64] = random(1)
t = Constant() {value=float32[1]{0.5}}
a = MatMul(x, w) "mul"
b = Mul(a, t) "half"
y = Relu(b) "relu"
z = Softmax(b) "soft"
output y: float32[2,64]
output z: float32[2,64]
output a: float32[2,64]
)");
  CHECK(run.outcome.changed);
  CHECK(why(run, "mul").empty());
  CHECK(constant(*run.after, "w").dtype() == DType::float16);
}

}  // namespace
}  // namespace onnxpress
