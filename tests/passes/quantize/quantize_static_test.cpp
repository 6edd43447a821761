#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "graph/base/random.h"
#include "passes/quantize/static_grids.h"
#include "passes/quantize/static_weights.h"
#include "tests/passes/common/listed_data.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

Tensor normal(Dims dims, std::uint64_t seed) {
  Random random(seed);
  Tensor tensor = Tensor::uninitialized(DType::float32, std::move(dims));
  for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(random.uniform(-2, 2));
  return tensor;
}

PassRun run_static(const std::string& options, std::string_view model, Dims input) {
  ListedData data({{normal(input, 1)}, {normal(input, 2)}, {normal(input, 3)}});
  return run_pass("quantize" + (options.empty() ? "" : "{" + options + "}"), model, {.calibration = &data});
}

std::size_t count(const Model& model, std::string_view op) {
  std::size_t found = 0;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) found += node->is(op);
  });
  return found;
}

const Node* node_of(const Model& model, std::string_view op) {
  for (const Node* node : model.graph.nodes())
    if (node->is(op)) return node;
  return nullptr;
}

TEST_CASE("grids of activations cover their range, with zero on a level") {
  struct Case {
    float low, high;
  };
  const ActivationType types[] = {{DType::uint8, 8, false}, {DType::uint8, 8, true},   {DType::int8, 8, false},
                                  {DType::int8, 8, true},   {DType::uint16, 16, false}, {DType::int16, 16, true},
                                  {DType::uint4, 4, false}, {DType::int4, 4, true}};
  for (const ActivationType& type : types)
    for (const Case& range : {Case{0, 6}, Case{-1, 3}, Case{-5, 0}, Case{2, 9}, Case{0, 0}, Case{-1e-30F, 1e-30F}, Case{-3e38F, 3e38F}})
      for (const bool power_of_two : {false, true}) {
        CAPTURE(name(type.storage));
        CAPTURE(range.low);
        CAPTURE(range.high);
        const ActivationGrid grid = make_activation_grid(range.low, range.high, type, power_of_two);
        const double scale = grid.parameters.scale;
        CHECK(std::isnormal(grid.parameters.scale));
        const double least = static_cast<double>(type.min() - grid.parameters.zero_point) * scale;
        const double most = static_cast<double>(type.max() - grid.parameters.zero_point) * scale;
        // Half a step is lost where zero is moved onto a level.
        CHECK(least <= std::min(range.low, 0.0F) + 0.5001 * scale);
        CHECK(most >= static_cast<double>(std::max(range.high, 0.0F)) * 0.999999 - 0.5001 * scale);
        CHECK(grid.zero_point().dtype() == type.storage);
        CHECK(grid.zero_point().to_ints()[0] == grid.parameters.zero_point);
        if (power_of_two) CHECK(std::log2(scale) == std::floor(std::log2(scale)));
        if (type.symmetric && is_signed_integer(type.storage)) CHECK(grid.parameters.zero_point == 0);
        if (range.low >= 0 && !is_signed_integer(type.storage)) CHECK(grid.parameters.zero_point == 0);
      }
}

TEST_CASE("what saturation does is told from what it does not") {
  const ActivationType type{DType::uint8, 8, false};
  const double none = std::numeric_limits<double>::infinity();
  const ActivationGrid positive = make_activation_grid(0, 6, type, false);
  CHECK(positive.saturates_at(0, none));
  CHECK(positive.saturates_at(0, 6));
  CHECK(positive.saturates_at(-1, 7));
  CHECK_FALSE(positive.saturates_at(0.1, 6));
  CHECK_FALSE(positive.saturates_at(0, 5.9));
  const ActivationGrid both = make_activation_grid(-1, 6, type, false);
  CHECK_FALSE(both.saturates_at(0, none));
  CHECK(both.saturates_at(-none, 6.1));
  CHECK_FALSE(make_activation_grid(0, 6, {DType::int8, 8, true}, false).saturates_at(0, none));
  CHECK(make_activation_grid(0, 6, {DType::int8, 8, false}, false).saturates_at(0, none));
}

TEST_CASE("a chain of convolutions is quantized once per tensor, Relu and Clip going") {
  const PassRun run = run_static("", R"(model ir=8 opset=17
input x: float32[1,4,8,8]
initializer w1: float32[16,4,3,3] = random(1)
initializer b1: float32[16] = random(2)
initializer w2: float32[16,16,3,3] = random(3)
initializer w3: float32[10,16] = random(4)
initializer low: float32[] = {0}
initializer high: float32[] = {6}
a = Conv(x, w1, b1) {pads=[1,1,1,1]}
r = Relu(a)
b = Conv(r, w2) {pads=[1,1,1,1]}
c = Clip(b, low, high)
s = Add(r, c)
g = GlobalAveragePool(s)
f = Flatten(g)
y = Gemm(f, w3) {transB=1}
output y: float32[1,10]
)", {1, 4, 8, 8});
  CHECK(run.outcome.changed);
  CHECK(count(*run.after, "Relu") == 0);
  CHECK(count(*run.after, "Clip") == 0);
  // x, r, c, s, g, f; not y, which nothing reads as codes.
  CHECK(count(*run.after, "QuantizeLinear") == 6);
  CHECK(run.outcome.counts["on_codes"] == 6);
  CHECK(run.outcome.counts["absorbed"] == 2);
  // Flatten keeps scale and zero point: the very same constants.
  const Node* flatten = node_of(*run.after, "Flatten");
  CHECK(flatten->input(0)->producer()->input(1) == flatten->output(0)->uses()[0].node->input(1));
  for (const OutputError& error : run.errors) CHECK(error.snr_db > 25);
  std::size_t biases = 0;
  for (const Json& layer : run.outcome.layers) biases += layer["kind"] == "bias";
  CHECK(biases == 1);
}

TEST_CASE("what no product is behind stays in float") {
  const PassRun run = run_static("", R"(model ir=8 opset=17
input x: float32[1,4,8,8]
initializer w1: float32[32,4,3,3] = random(1)
a = Conv(x, w1)
b = Sigmoid(a)
y = Mul(a, b)
output y: float32[1,32,6,6]
)", {1, 4, 8, 8});
  CHECK(count(*run.after, "QuantizeLinear") == 2);
  CHECK(run.reason("quantize") == "no operator on codes is behind it");
  // Both read what Conv's codes are dequantized to, so that ONNX Runtime can fuse it.
  CHECK(node_of(*run.after, "Sigmoid")->input(0)->producer()->is("DequantizeLinear"));
  CHECK(node_of(*run.after, "Mul")->input(0)->producer()->is("DequantizeLinear"));
}

TEST_CASE("a bias that overflows raises the scale of its channel") {
  const PassRun run = run_static("", R"(model ir=8 opset=17
input x: float32[2,64]
initializer w: float32[64,32] = random(1,-1e-6,1e-6)
initializer b: float32[32] = random(2,1e5,2e5)
y = Gemm(x, w, b)
output y: float32[2,32]
)", {2, 64});
  CHECK(run.outcome.changed);
  bool told = false;
  for (const std::string& note : run.outcome.notes) told |= note.find("does not fit into 32 bits") != std::string::npos;
  CHECK(told);
  for (const OutputError& error : run.errors) CHECK(error.snr_db > 60);
}

TEST_CASE("channels of zeros keep their bias") {
  auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2,64]
initializer w: float32[32,64] = random(1)
initializer b: float32[32] = random(2,-0.01,0.01)
y = Gemm(x, w, b) {transB=1}
output y: float32[2,32]
)");
  Value* w = model->graph.find("w");
  Tensor tensor = *w->constant();
  for (std::size_t i = 0; i < 64; ++i) tensor.mutable_data<float>()[i] = 0;
  model->graph.set_initializer(w, tensor);
  ListedData data({{normal({2, 64}, 1)}, {normal({2, 64}, 2)}});
  const PassRun run = run_pass("quantize", std::move(model), {.calibration = &data});
  for (const Json& layer : run.outcome.layers)
    if (layer["kind"] == "bias") CHECK(layer["snr_db"].get<double>() > 40);
}

TEST_CASE("never larger, and what is left is named") {
  const PassRun run = run_static("", R"(model ir=8 opset=17
input x: float32[2,4]
initializer w: float32[4,4] = random(1)
y = MatMul(x, w)
output y: float32[2,4]
)", {2, 4});
  CHECK_FALSE(run.outcome.changed);
  CHECK(run.reason("quantize").find("would grow") != std::string::npos);
}

TEST_CASE("the same model and data give the same bytes on any number of threads") {
  constexpr std::string_view text = R"(model ir=8 opset=17
input x: float32[2,64]
initializer w: float32[64,64] = random(1)
initializer v: float32[64,64] = random(2)
a = MatMul(x, w)
b = Relu(a)
y = MatMul(b, v)
output y: float32[2,64]
)";
  std::string first;
  for (const int threads : {1, 3}) {
    ListedData data({{normal({2, 64}, 1)}, {normal({2, 64}, 2)}});
    auto model = parse_model(text);
    const Pipeline pipeline = Pipeline::parse("quantize");
    ThreadPool pool(threads);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool, .calibration = &data};
    pipeline.steps[0].pass->run(*model, context);
    const std::string found = to_text(*model);
    if (first.empty()) first = found;
    CHECK(found == first);
  }
}

TEST_CASE("tables are looked up as codes where Gather takes these, else as floats") {
  const std::string model =
      "model ir=13 opset=25\ninput x: float32[2,32]\ninitializer table: float32[400,32] = random(1)\n"
      "initializer w: float32[32,64] = random(2)\ninitializer rows: int64[2] = {3,7}\n"
      "g = Gather(table, rows)\ns = Add(g, x)\ny = MatMul(s, w)\noutput y\n";
  for (const auto& [options, codes] : {std::pair{"", true}, {"bits=4", false}, {"type=uint4", false}, {"bits=2", false},
                                       {"bits=6", true}, {"type=int16", true}}) {
    CAPTURE(options);
    const PassRun run = run_static(options, model, {2, 32});
    const Node* gather = node_of(*run.after, "Gather");
    REQUIRE(gather);
    CHECK((gather->input(0)->constant() != nullptr) == codes);
    if (codes) continue;
    REQUIRE(gather->input(0)->producer());
    CHECK(gather->input(0)->producer()->is("DequantizeLinear"));
  }
}

TEST_CASE("what only a body reads is quantized in front of the node that holds it") {
  const std::string model = R"(model ir=8 opset=17
input x: float32[2,64]
initializer w: float32[64,128] = random(1)
initializer zero: float32[] = {0}
s = ReduceSum(x) {keepdims=0}
c = Greater(s, zero)
y = If(c) {then_branch=graph {
  a = MatMul(x, w)
  output a
}, else_branch=graph {
  k = Concat(x, x) {axis=1}
  b = Relu(k)
  output b
}}
output y: float32[2,128]
)";
  const PassRun run = run_static("", model, {2, 64});
  CHECK(run.outcome.changed);
  CHECK(count(*run.after, "QuantizeLinear") >= 1);
  verify(*run.after);
}

TEST_CASE("nodes quantized before become operators on codes with form=qoperator") {
  const std::string model =
      "model ir=8 opset=17\ninput x: float32[2,64]\ninitializer w: float32[64,32] = random(1)\n"
      "y = MatMul(x, w)\noutput y\n";
  const PassRun first = run_static("", model, {2, 64});
  ListedData data({{normal({2, 64}, 1)}, {normal({2, 64}, 2)}});
  const PassRun second = run_pass("quantize{form=qoperator}", first.after->clone(), {.calibration = &data});
  CHECK(second.outcome.changed);
  CHECK(count(*second.after, "MatMul") == 0);
}

TEST_CASE("biases of grouped transposed convolutions have scales by output channel") {
  const std::string model =
      "model ir=8 opset=17\ninput x: float32[2,8,10,10]\ninitializer w: float32[8,12,3,3] = random(1)\n"
      "initializer b: float32[24] = random(2)\nc = ConvTranspose(x, w, b) {group=2}\ny = Relu(c)\noutput y\n";
  const PassRun run = run_static("target=generic", model, {2, 8, 10, 10});
  CHECK(run.errors[0].snr_db > 15);
  bool found = false;
  for (const Node* node : run.after->graph.nodes())
    if (node->is("ConvTranspose")) {
      const Node* bias = node->input(2)->producer();
      REQUIRE(bias);
      CHECK(bias->input(1)->constant()->dims() == Dims{24});
      found = true;
    }
  CHECK(found);
}

TEST_CASE("16-bit floats: no joined codes, and biases that float16 scales hold") {
  const auto halves = [](double bias) {
    return fmt::format("model ir=9 opset=19\ninput x: float16[2,16,8,8]\ninitializer w: float16[32,16,3,3] = random(1,-0.01,0.01)\n"
                       "initializer b: float16[32] = random(2,-{0},{0})\ninitializer v: float16[16,64,3,3] = random(3)\n"
                       "c = Conv(x, w, b)\nr = Relu(c)\nj = Concat(r, c) {{axis=1}}\ny = Conv(j, v)\noutput y\n", bias);
  };
  ListedData data({{normal({2, 16, 8, 8}, 1).cast(DType::float16)}, {normal({2, 16, 8, 8}, 2).cast(DType::float16)}});
  for (const double bias : {0.5, 3.0, 50.0}) {
    CAPTURE(bias);
    const PassRun run = run_pass("quantize", halves(bias), {.calibration = &data});
    CHECK(run.outcome.changed);
    for (const Node* node : run.after->graph.nodes()) {
      if (node->is("Concat"))
        for (const Use& use : node->output(0)->uses()) CHECK(!use.node->is("QuantizeLinear"));
      if (!node->is("Conv") || !node->input(2)) continue;
      const Node *scaled = node->input(1)->producer(), *input = node->input(0)->producer();
      if (!scaled || !input) continue;  // left in float
      const float unit = input->input(1)->constant()->to_floats()[0];
      const std::vector<float> scales = scaled->input(1)->constant()->to_floats(), biases = node->input(2)->constant()->to_floats();
      for (std::size_t c = 0; c < biases.size(); ++c) {
        CHECK(std::fabs(biases[c]) / (unit * scales[c]) < 65504);
        CHECK(unit * scales[c] >= 0x1p-18F * 0.99F);
      }
    }
  }
}

TEST_CASE("tables have zero points, also where these are zero") {
  const std::string model =
      "model ir=8 opset=17\ninput x: float32[2,32]\ninitializer table: float32[400,32] = random(1,-1,1)\n"
      "initializer w: float32[32,64] = random(2)\ninitializer rows: int64[2] = {3,7}\n"
      "g = Gather(table, rows)\ns = Add(g, x)\ny = MatMul(s, w)\noutput y\n";
  for (const char* options : {"granularity=tensor", "granularity=tensor,scheme=dynamic"}) {
    CAPTURE(options);
    const PassRun run = run_static(options, model, {2, 32});
    const Node* gather = node_of(*run.after, "Gather");
    REQUIRE(gather);
    const Node* floats = gather->output(0)->uses()[0].node;
    REQUIRE(floats->is("DequantizeLinear"));
    REQUIRE(floats->input(2));
    CHECK(floats->input(2)->constant()->dtype() == gather->input(0)->constant()->dtype());
  }
}

TEST_CASE("functions stay where they are when their bodies take more than codes save") {
  const std::string body = R"(function local.Mix() opset=17 {
  input x
  k = Constant() {value=float32[32,32] random(7)}
  p = MatMul(x, k)
  y = Tanh(p)
  output y
}
)";
  std::string calls = "model ir=8 opset=17 local=1\ninput x: float32[2,32]\n";
  for (int i = 0; i < 12; ++i) calls += fmt::format("v{} = local.Mix({})\n", i, i == 0 ? "x" : fmt::format("v{}", i - 1));
  const PassRun kept = run_static("", calls + "output v11: float32[2,32]\n" + body, {2, 32});
  CHECK(!kept.outcome.changed);
  CHECK(kept.after->functions.size() == 1);
}

}  // namespace
}  // namespace onnxpress
