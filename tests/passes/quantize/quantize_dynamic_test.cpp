#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <set>

#include "passes/core/runner.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::map<std::string, int> operators_of(const Model& model) {
  std::map<std::string, int> counts;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) ++counts[node->op_type()];
  });
  return counts;
}

// The step changes the model; outputs keep the signal-to-noise ratio.
PassRun quantized(const std::string& options, const std::string& text, double least_snr_db = 30) {
  CAPTURE(text);
  PassRun run = run_pass("quantize{scheme=dynamic" + (options.empty() ? "" : "," + options) + "}", text);
  CHECK(run.outcome.changed);
  for (const OutputError& error : run.errors) CHECK(error.snr_db >= least_snr_db);
  return run;
}

const std::string head = "model ir=8 opset=17\ninput x: float32[6,48]\n";

TEST_CASE("products become MatMulInteger, one quantization for each activation") {
  const std::string text = head + R"(initializer q: float32[48,40] = random(1)
initializer k: float32[40,48] = random(2)
initializer b: float32[40] = random(3)
initializer v: float32[40,30] = random(4)
a = MatMul(x, q)
c = Gemm(x, k, b) {transB=1, alpha=0.5, beta=2.0}
s = Add(a, c)
y = MatMul(s, v)
output y
)";
  for (const char* options : {"", "granularity=tensor", "symmetric=false", "symmetric=false,granularity=tensor", "type=uint8",
                              "type=int8,symmetric=false", "target=ort-cpu-avx2", "power_of_two=true", "method=rtn"}) {
    CAPTURE(options);
    const PassRun run = quantized(options, text);
    auto counts = operators_of(*run.after);
    CHECK(counts["DynamicQuantizeLinear"] == 2);
    CHECK(counts["MatMulInteger"] == 3);
    CHECK(counts["Transpose"] == 0);  // the codes are stored as they are read
    CHECK(counts["MatMul"] + counts["Gemm"] == 0);
    CHECK(run.outcome.counts["MatMulInteger"] == 3);
    CHECK(run.outcome.layers.size() == 3);
    CHECK_FALSE(run_pass("quantize{scheme=dynamic}", run.after->clone()).outcome.changed);
  }
}

TEST_CASE("a transposed activation is transposed as codes") {
  const PassRun run = quantized("", "model ir=8 opset=17\ninput x: float32[48,6]\ninitializer w: float32[48,40] = random(1)\n"
                                    "y = Gemm(x, w) {transA=1}\noutput y\n");
  CHECK(operators_of(*run.after)["Transpose"] == 1);
}

TEST_CASE("stacks of matrices have a scale for each column, without zero points") {
  for (const char* options : {"", "symmetric=false", "granularity=tensor", "symmetric=false,granularity=tensor"})
    quantized(options, "model ir=8 opset=17\ninput x: float32[2,6,48]\ninitializer w: float32[2,48,40] = random(1)\n"
                       "y = MatMul(x, w)\noutput y\n");
}

TEST_CASE("float16 models are quantized through float32") {
  for (const char* type : {"float16", "bfloat16"}) {
    const std::string t = type;
    const PassRun run = quantized("", "model ir=10 opset=21\ninput x: " + t + "[6,48]\ninput i: int64[5]\ninitializer w: " + t +
                                          "[48,40] = random(1)\ninitializer b: " + t + "[40] = random(2)\ninitializer e: " + t +
                                          "[80,40] = random(3)\ninitializer v: " + t + "[40,50] = random(4)\n"
                                          "a = Gemm(x, w, b)\ng = Gather(e, i)\ny = MatMul(a, v)\noutput y\noutput g\n",
                                  25);
    CHECK(operators_of(*run.after)["MatMulInteger"] == 2);
  }
}

TEST_CASE("convolutions of one group become ConvInteger of uint8") {
  const std::string text = R"(model ir=8 opset=17
input x: float32[2,16,9,8]
input c: float32[24]
initializer w: float32[24,16,3,3] = random(1)
initializer b: float32[24] = random(2)
initializer d: float32[24,1,7,7] = random(3)
a = Conv(x, w, b) {pads=[1,1,1,1], strides=[2,1]}
e = Conv(x, w, c) {dilations=[2,2]}
f = Conv(a, d) {group=24, pads=[3,3,3,3]}
output e
output f
)";
  for (const char* options : {"", "granularity=tensor", "symmetric=false,granularity=tensor", "symmetric=false"}) {
    const PassRun run = quantized(options, text);
    auto counts = operators_of(*run.after);
    CHECK(counts["ConvInteger"] == 2);
    CHECK(counts["DynamicQuantizeLinear"] == 1);
    CHECK(counts["DequantizeLinear"] == 1);  // of the depthwise one's weight
    for (const Node* node : run.after->graph.nodes())
      if (node->is("ConvInteger")) CHECK(node->input(1)->constant()->dtype() == DType::uint8);
  }
}

TEST_CASE("embeddings are looked up as codes") {
  for (const int axis : {0, 1, -2})
    for (const char* options : {"", "granularity=tensor", "symmetric=false", "symmetric=false,granularity=tensor", "type=uint8"}) {
      const PassRun run = quantized(options, "model ir=8 opset=17\ninput i: int64[2,3]\ninitializer e: float32[60,70] = random(1)\n"
                                             "y = Gather(e, i) {axis=" + std::to_string(axis) + "}\noutput y\n");
      CHECK(run.outcome.counts["Gather"] == 1);
    }
}

TEST_CASE("a table that is multiplied with too has its codes once") {
  const PassRun run = quantized("", R"(model ir=8 opset=17
input i: int64[3]
initializer e: float32[90,64] = random(1)
g = Gather(e, i)
t = Transpose(e) {perm=[1,0]}
y = MatMul(g, t)
output y
)");
  CHECK(run.outcome.layers.size() == 1);
  std::set<std::int64_t> large;
  for (const Value* value : run.after->graph.initializers())
    if (value->constant()->size() > 90) large.insert(value->constant()->size());
  CHECK(large == std::set<std::int64_t>{90 * 64});
}

TEST_CASE("recurrent weights: DynamicQuantizeLSTM, else DequantizeLinear") {
  const auto text = [](const std::string& op, int gates) {
    return "model ir=8 opset=17\ninput x: float32[5,3,40]\ninitializer w: float32[1," + std::to_string(gates * 24) +
           ",40] = random(1,-0.3,0.3)\ninitializer r: float32[1," + std::to_string(gates * 24) +
           ",24] = random(2,-0.3,0.3)\ny, h = " + op + "(x, w, r) {hidden_size=24}\noutput y\noutput h\n";
  };
  const PassRun lstm = quantized("", text("LSTM", 4), 25);
  CHECK(operators_of(*lstm.after) == std::map<std::string, int>{{"DynamicQuantizeLSTM", 1}});
  CHECK(lstm.after->opsets.at("com.microsoft") == 1);
  for (const auto& [op, gates] : {std::pair("GRU", 3), std::pair("RNN", 1), std::pair("LSTM", 4)}) {
    const PassRun run = quantized("target=generic", text(op, gates));
    CHECK(operators_of(*run.after) == std::map<std::string, int>{{op, 1}, {"DequantizeLinear", 2}});
    CHECK_FALSE(run.after->opsets.contains("com.microsoft"));
  }
}

TEST_CASE("a weight of several kinds of operators: integers where they are, DequantizeLinear elsewhere") {
  const PassRun run = quantized("", head + R"(initializer w: float32[48,40] = random(1)
a = MatMul(x, w)
n = ReduceSum(w)
y = Add(a, n)
output y
)");
  auto counts = operators_of(*run.after);
  CHECK(counts["MatMulInteger"] == 1);
  CHECK(counts["DequantizeLinear"] == 1);
}

TEST_CASE("bodies of control flow are quantized, weights of the graph around once") {
  const PassRun run = quantized("", head + R"(input c: bool[]
initializer w: float32[48,40] = random(1)
y = If(c) {then_branch=graph {
  a = MatMul(x, w)
  output a: float32[6,40]
}, else_branch=graph {
  initializer v: float32[48,40] = random(2)
  p = MatMul(x, v)
  q = MatMul(x, w)
  b = Add(p, q)
  output b: float32[6,40]
}}
output y
)");
  auto counts = operators_of(*run.after);
  CHECK(counts["MatMulInteger"] == 3);
  CHECK(counts["DynamicQuantizeLinear"] == 2);
  CHECK(run.outcome.layers.size() == 2);
}

TEST_CASE("what stays in float is told") {
  PassRun run = run_pass("quantize{scheme=dynamic}", head + R"(input z: float32[48,7]
initializer small: float32[48,2] = random(1)
a = MatMul(x, z)
b = MatMul(x, small)
output a
output b
)");
  CHECK_FALSE(run.outcome.changed);
  std::string reasons;
  for (const NearMiss& miss : run.near_misses) reasons += miss.subject + ": " + miss.reason + "\n";
  CHECK(reasons.find("both operands are made when the model runs") != std::string::npos);
  CHECK(reasons.find("'small' would not shrink") != std::string::npos);

  auto model = parse_model(head + "initializer w: float32[48,40] = random(1)\ny = MatMul(x, w)\noutput y\n");
  Tensor weight = *model->graph.find("w")->constant();
  weight.mutable_data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  model->graph.set_initializer(model->graph.find("w"), weight);
  run = run_pass("quantize{scheme=dynamic}", std::move(model));
  CHECK_FALSE(run.outcome.changed);
  CHECK(run.near_misses.at(0).reason.find("NaN") != std::string::npos);
}

TEST_CASE("overrides leave nodes in float or give them fewer levels") {
  const std::string text = head + R"(initializer w: float32[48,40] = random(1)
initializer v: float32[40,48] = random(2)
a = MatMul(x, w) "first"
y = MatMul(a, v) "second"
output y
)";
  const PassRun run = quantized("overrides='first=float;second=5'", text, 15);
  REQUIRE(run.outcome.layers.size() == 1);
  CHECK(run.outcome.layers[0]["tensor"] == "v");
  CHECK(run.outcome.layers[0]["bits"] == 5);
}

TEST_CASE("what dynamic quantization cannot be asked is refused") {
  for (const char* options : {"target=tensorrt", "target=qnn", "form=qdq", "form=codebook", "act_bits=16", "act_type=int8",
                              "act_symmetric=true", "type=int4", "granularity=block", "scales=fp16", "bits=16", "overrides='x=16'"}) {
    CAPTURE(options);
    const Pipeline pipeline = Pipeline::parse("quantize{scheme=dynamic," + std::string(options) + "}");
    CHECK_THROWS_AS(pipeline.steps[0].pass->check(pipeline.steps[0].options), Error);
  }
}

}  // namespace
}  // namespace onnxpress
