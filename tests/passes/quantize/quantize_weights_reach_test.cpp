// Which weights a weight-only quantization reaches.
#include <doctest/doctest.h>

#include "graph/onnx/writer.h"
#include "graph/ops/transpose.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::map<std::string, Json> layers_by_tensor(const PassRun& run) {
  std::map<std::string, Json> layers;
  for (const Json& layer : run.outcome.layers) layers[layer["tensor"].get<std::string>()] = layer;
  return layers;
}

TEST_CASE("weights that arrive transposed, reshaped or cast: channels are found again") {
  const PassRun run = run_pass("quantize_weights{bits=4,granularity=block,block=16}", R"(model ir=10 opset=21
input x: float32[2,64]
input k: float32[1,32,8,8]
initializer turned: float32[48,64] = random(1)
initializer flat: float32[16,288] = random(2)
initializer half: float16[64,40] = random(3)
initializer odd: float32[3072] = random(4)
initializer shape: int64[4] = {16, 32, 3, 3}
initializer square: int64[2] = {64, 48}
t = Transpose(turned) {perm=[1,0]}
a = MatMul(x, t)
kernel = Reshape(flat, shape)
b = Conv(k, kernel)
wide = Cast(half) {to=1}
c = MatMul(x, wide)
matrix = Reshape(odd, square)
d = MatMul(x, matrix)
output a: float32[2,48]
output b: float32[1,16,6,6]
output c: float32[2,40]
output d: float32[2,48]
)");
  auto layers = layers_by_tensor(run);
  REQUIRE(layers.size() == 4);
  CHECK(layers["turned"]["granularity"] == "block");
  CHECK(layers["turned"]["axis"] == 1);
  CHECK(layers["flat"]["granularity"] == "channel");  // its inputs are no axis any more
  CHECK(layers["flat"]["axis"] == 0);
  CHECK(layers["half"]["granularity"] == "block");
  CHECK(layers["half"]["axis"] == 0);
  CHECK(layers["odd"]["granularity"] == "tensor");
}

TEST_CASE("a float constant that becomes something else is no weight") {
  check_unchanged("quantize_weights", R"(model ir=10 opset=21
input i: int64[3]
initializer table: float32[64,64] = random(1,0,100)
numbers = Cast(table) {to=7}
y = Gather(numbers, i)
output y: int64[3,64]
)");
}

TEST_CASE("embedding and output layer: a matrix and its transpose are stored once") {
  const auto text = R"(model ir=10 opset=21
input i: int64[3]
initializer table: float32[50,64] = random(1)
initializer head: float32[64,50] = random(2)
initializer other: float32[64,50] = random(3)
rows = Gather(table, i)
y = MatMul(rows, head)
z = MatMul(rows, other)
output y: float32[3,50]
output z: float32[3,50]
)";
  auto model = parse_model(text);
  model->graph.set_initializer(model->graph.find("head"), transposed(*model->graph.find("table")->constant(), {1, 0}));
  for (const std::string form : {"qdq", "codebook"}) {
    CAPTURE(form);
    const PassRun run = run_pass("quantize_weights{bits=4,form=" + form + "}", model->clone());
    CHECK(run.outcome.counts["tied"] == 1);
    CHECK(layers_by_tensor(run).contains("table"));
    CHECK_FALSE(layers_by_tensor(run).contains("head"));
    CHECK(layers_by_tensor(run).contains("other"));
    CHECK(run.errors[0].snr_db > 12);
  }
  const PassRun apart = run_pass("quantize_weights{bits=4,form=contrib}", model->clone());
  CHECK(apart.outcome.counts["tied"] == 0);
}

TEST_CASE("operators of com.microsoft") {
  const PassRun run = run_pass("quantize_weights{bits=4,granularity=block,block=16}", R"(model ir=10 opset=21 com.microsoft=1
input x: float32[2,64]
input k: float32[1,32,8,8]
initializer kernel: float32[16,32,3,3] = random(1)
initializer matrix: float32[48,64] = random(2)
initializer square: float32[48,64] = random(3)
a = com.microsoft.FusedConv(k, kernel) {activation="Relu"}
b = com.microsoft.FusedMatMul(x, matrix) {transB=1}
c = com.microsoft.FusedGemm(x, square) {transB=1, activation="Relu"}
output a: float32[1,16,6,6]
output b: float32[2,48]
output c: float32[2,48]
)");
  auto layers = layers_by_tensor(run);
  REQUIRE(layers.size() == 3);
  for (const auto& [tensor, layer] : layers) CHECK(layer["axis"] == 1);
}

TEST_CASE("weights of nested graphs, read through what is around them") {
  const PassRun run = run_pass("quantize_weights{bits=4}", R"(model ir=10 opset=21
input x: float32[2,64]
input c: bool[]
initializer outer: float32[64,64] = random(1)
y = If(c) {then_branch=graph {
  t = Transpose(outer) {perm=[1,0]}
  a = MatMul(x, t)
  output a
}, else_branch=graph {
  initializer inner: float32[64,64] = random(2)
  b = MatMul(x, inner)
  output b
}}
output y: float32[2,64]
)");
  CHECK(layers_by_tensor(run).size() == 2);
}

TEST_CASE("weights that operators in functions read are found, if the file does not grow by it") {
  const std::string model = R"(model ir=10 opset=21 local=1
input x: float32[2,64]
initializer w: float32[64,64] = random(1)
initializer v: float32[64,64] = random(2)
a = local.Dense(x, w)
y: float32[2,64] = local.Dense(a, v)
output y: float32[2,64]
function local.Dense() opset=21 {
  input x
  input w
  p = MatMul(x, w)
  y = Relu(p)
  output y
}
)";
  for (const char* step : {"quantize_weights", "quantize{scheme=dynamic}", "quantize{scheme=weights,bits=auto,budget=9bpw}"}) {
    CAPTURE(step);
    const PassRun run = run_pass(step, model);
    CHECK(run.outcome.layers.size() == 2);
    CHECK(run.after->functions.empty());
  }
  std::string many = "model ir=10 opset=21 local=1\ninput x: float32[2,2]\ninitializer w: float32[2,2] = random(1)\n";
  for (int i = 0; i < 20; ++i) many += fmt::format("v{} = local.Dense({}, w)\n", i, i == 0 ? "x" : fmt::format("v{}", i - 1));
  const PassRun kept = run_pass("quantize_weights", many + "output v19: float32[2,2]\n" + model.substr(model.find("function")));
  CHECK(!kept.outcome.changed);
  CHECK(kept.after->functions.size() == 1);
}

TEST_CASE("factors of constants are stored as the runtime multiplies them") {
  const std::string model = R"(model ir=10 opset=25
input x: float32[2,48]
initializer p: float32[48,64] = random(1)
initializer w: float32[64,32] = random(2)
pw = MatMul(p, w)
y = MatMul(x, pw)
output y: float32[2,32]
)";
  auto two_bits = layers_by_tensor(run_pass("quantize_weights{bits=2}", model));
  CHECK(two_bits["p"]["storage"] == "int4");
  CHECK(two_bits["w"]["storage"] == "int2");
  auto with_zeros = layers_by_tensor(run_pass("quantize_weights{symmetric=false}", model));
  CHECK(with_zeros["p"]["granularity"] == "tensor");
  CHECK(with_zeros["w"]["granularity"] == "channel");
  auto smallest = layers_by_tensor(run_pass("quantize_weights{bits=2,storage=smallest}", model));
  CHECK(smallest["p"]["storage"] == "int2");
}

TEST_CASE("scales that float16 does not hold are of the weight's type, and weights that none holds stay") {
  const auto model = [](std::string_view factor) {
    return fmt::format(R"(model ir=10 opset=21
input x: float32[2,64]
initializer w: float32[64,64] = random(1,-{0},{0})
y = MatMul(x, w)
output y: float32[2,64]
)", factor);
  };
  for (const std::string options : {"scales=fp16", "scales=fp16,method=mse", "scales=fp16,bits=4,granularity=block"})
    for (const auto& [factor, is_half] : {std::pair{"1.0", true}, {"0.001", true}, {"1e-7", false}, {"1e9", false}}) {
      CAPTURE(options);
      CAPTURE(factor);
      const PassRun run = run_pass("quantize_weights{" + options + "}", model(factor));
      REQUIRE(run.outcome.layers.size() == 1);
      CHECK(run.outcome.layers[0]["snr_db"].get<double>() > 15);
      bool found = false;
      for (const Node* node : run.after->graph.nodes()) found |= node->is("Cast");
      CHECK(found == is_half);
    }
  for (const char* step : {"quantize_weights", "quantize{scheme=dynamic}"}) {
    const PassRun run = run_pass(step, model("1e-41"));
    CHECK(!run.outcome.changed);
    REQUIRE(!run.near_misses.empty());
    CHECK(run.near_misses[0].reason == "'w' holds numbers too small for scales of float32 only");
  }
}

TEST_CASE("matrices multiplied with a value of unknown rank are weights") {
  const PassRun run = run_pass("quantize_weights", R"(model ir=8 opset=17
input x: float32[2,64]
input shape: int64[n]
initializer w: float32[64,64] = random(1)
v = Squeeze(x)
y = MatMul(v, w)
output y
output shape
)");
  REQUIRE(run.outcome.layers.size() == 1);
  CHECK(run.outcome.layers[0]["granularity"] == "channel");
  CHECK(run.outcome.layers[0]["axis"] == 1);
}

TEST_CASE("float8 factors of constants stay: the runtime multiplies integers only") {
  const std::string model = R"(model ir=10 opset=21
input x: float32[2,48]
initializer p: float32[48,64] = random(1)
initializer w: float32[64,32] = random(2)
pw = MatMul(p, w)
y = MatMul(x, pw)
output y: float32[2,32]
)";
  CHECK(!run_pass("quantize_weights{type=float8e4m3fn}", model).outcome.changed);
  CHECK(run_pass("quantize_weights{type=float8e4m3fn,storage=smallest}", model).outcome.changed);
}

}  // namespace
}  // namespace onnxpress
