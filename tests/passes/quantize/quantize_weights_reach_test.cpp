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

}  // namespace
}  // namespace onnxpress
