#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "passes/quantize/channel_classes.h"
#include "tests/passes/quantize/channels.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "equalize";

std::vector<double> inverse(std::vector<double> factors) {
  for (double& factor : factors) factor = 1 / factor;
  return factors;
}

// Two convolutions with `middle` from `a` to `b` between them; 6 channels.
std::string pair(const std::string& middle, const std::string& more = "") {
  return "model ir=8 opset=17\ninput x: float32[2,3,8,8]\ninitializer w: float32[6,3,3,3] = random(1)\n"
         "initializer k: float32[6] = random(2)\ninitializer v: float32[4,6,1,1] = random(3)\n" +
         more + "a = Conv(x, w, k) {pads=[1,1,1,1]} \"first\"\n" + middle + "y = Conv(b, v) \"second\"\noutput y\n";
}

// Makes the channels between unlike, keeping the function as `middle` lets factors through.
PassRun run_unlike(const std::string& text, const std::string& step = pass) {
  std::unique_ptr<Model> model = parse_model(text);
  const std::vector<double> factors = unlike_factors(6, 5);
  scale_constant(*model, "w", 0, factors);
  scale_constant(*model, "k", 0, factors);
  scale_constant(*model, "v", 1, inverse(factors));
  return run_pass(step, std::move(model));
}

TEST_CASE("text in, text out: both weights get the root of the product of their ranges") {
  check_pass(pass, R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,2] = {16,1,8,0.25}
initializer k: float32[2] = {-4,1}
initializer v: float32[2,1] = {1,4}
a = Gemm(x, w, k) "first"
b = Relu(a)
y = Gemm(b, v) "second"
output y: float32[n,1]
)",
             R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,2] = {4,2,2,0.5}
initializer k: float32[2] = {-1,2}
initializer v: float32[2,1] = {4,2}
a = Gemm(x, w, k) "first"
b = Relu(a)
y = Gemm(b, v) "second"
output y: float32[n,1]
)");
}

TEST_CASE("ranges are equal on both sides whatever homogeneous stands between") {
  for (const std::string middle : {"b = Relu(a)\n", "b = LeakyRelu(a) {alpha=0.2}\n", "b = PRelu(a, s)\n", "b = Identity(a)\n",
                                   "b = MaxPool(a) {kernel_shape=[2,2]}\n", "b = AveragePool(a) {kernel_shape=[3,3], pads=[1,1,1,1]}\n",
                                   "b = GlobalAveragePool(a)\n", "b = GlobalMaxPool(a)\n", "t = Relu(a)\nb = MaxPool(t) {kernel_shape=[2,2]}\n",
                                   "b = Clip(a, zero)\n", "b = ReduceMean(a) {axes=[2,3]}\n", "b = Pad(a, widths)\n", "b = Mul(a, two)\n",
                                   "t = Transpose(a) {perm=[0,2,3,1]}\nr = Relu(t)\nb = Transpose(r) {perm=[0,3,1,2]}\n"}) {
    CAPTURE(middle);
    const PassRun run = run_unlike(pair(middle, "initializer s: float32[6,1,1] = random(7,0.1,0.5)\ninitializer zero: float32[] = {0}\n"
                                                "initializer widths: int64[8] = {0,0,1,1,0,0,1,1}\ninitializer two: float32[] = {2}\n"));
    CHECK(run.outcome.counts["equalized"] == 2);
    CHECK(spread(*run.before, "w", 0) > 20);
    CHECK(spread(*run.after, "w", 0) < 4);
    CHECK(spread(*run.after, "v", 1) < 4);
    const auto ends = ChannelClasses::of(*run.after, pass, nullptr);
    const ScalingEnd* first = ends.find(*run.after->graph.nodes().front());
    const ScalingEnd* second = ends.find(*run.after->graph.nodes().back());
    REQUIRE(first != nullptr);
    REQUIRE(second != nullptr);
    const ChannelRanges made = channel_ranges(*first->linear, {}, {}), read = channel_ranges(*second->linear, {}, {});
    for (std::size_t c = 0; c < 6; ++c) CHECK(made.out[c] == doctest::Approx(read.in[c]).epsilon(0.02));
    CHECK_FALSE(run_pass(pass, run.after->clone()).outcome.changed);
  }
}

TEST_CASE("depthwise convolutions in a chain") {
  std::unique_ptr<Model> model = parse_model(
      "model ir=8 opset=17\ninput x: float32[1,3,9,9]\ninitializer w: float32[8,3,1,1] = random(1)\ninitializer k: float32[8] = random(2)\n"
      "initializer d: float32[8,1,3,3] = random(3)\ninitializer e: float32[8] = random(4)\ninitializer v: float32[4,8,1,1] = random(5)\n"
      "a = Conv(x, w, k)\nb = Relu(a)\nc = Conv(b, d, e) {group=8, pads=[1,1,1,1]}\nf = Relu(c)\ny = Conv(f, v)\noutput y\n");
  const std::vector<double> one = unlike_factors(8, 1), two = unlike_factors(8, 2);
  scale_constant(*model, "w", 0, one);
  scale_constant(*model, "k", 0, one);
  scale_constant(*model, "d", 0, inverse(one));
  scale_constant(*model, "d", 0, two);
  scale_constant(*model, "e", 0, two);
  scale_constant(*model, "v", 1, inverse(two));
  const PassRun run = run_pass(pass, std::move(model));
  CHECK(run.outcome.counts["equalized"] == 3);
  CHECK(spread(*run.before, "d", 0) > 100);
  CHECK(spread(*run.after, "w", 0) < 5);
  CHECK(spread(*run.after, "d", 0) < 5);
  CHECK(spread(*run.after, "v", 1) < 5);
}

TEST_CASE("residual sums, branches, concatenations, splits and flattening keep the function") {
  const std::string start =
      "model ir=8 opset=17\ninput x: float32[2,3,4,4]\ninitializer w: float32[6,3,1,1] = random(1,-5,5)\ninitializer k: float32[6] = random(2)\n"
      "initializer u: float32[6,6,3,3] = random(3)\ninitializer v: float32[2,6,1,1] = random(4,-0.01,0.01)\n"
      "initializer z: float32[2,12,1,1] = random(5,-0.01,0.01)\ninitializer g: float32[96,5] = random(6,-0.01,0.01)\n"
      "initializer h: float32[2,3,1,1] = random(7,-0.01,0.01)\n";
  for (const std::string body :
       {"a = Conv(x, w, k)\nb = Relu(a)\nc = Conv(b, u) {pads=[1,1,1,1]}\ns = Add(b, c)\nr = Relu(s)\ny = Conv(r, v)\noutput y\n",
        "a = Conv(x, w, k)\nb = Relu(a)\nc = Conv(b, u) {pads=[1,1,1,1]}\nd = Concat(c, b) {axis=1}\ny = Conv(d, z)\noutput y\n",
        "a = Conv(x, w, k)\nb = Relu(a)\nf = Flatten(b)\ny = Gemm(f, g)\noutput y\n",
        "a = Conv(x, w, k)\nb = Relu(a)\nf = Reshape(b, to)\ny = MatMul(f, g)\noutput y\n",
        "a = Conv(x, w, k)\np, q = Split(a, parts) {axis=1}\ny = Conv(p, h)\nr = Relu(q)\nm = Conv(r, h2)\noutput y\noutput m\n",
        "a = Conv(x, w, k)\nb = Relu(a)\nc = GlobalAveragePool(b)\nd = Conv(c, v2)\ne = Sigmoid(d)\nm = Mul(b, e)\ny = Conv(m, v)\noutput y\n"}) {
    CAPTURE(body);
    const PassRun run = run_pass(pass, start + "initializer to: int64[2] = {2,-1}\ninitializer parts: int64[2] = {3,3}\n"
                                               "initializer h2: float32[2,3,1,1] = random(8,-0.01,0.01)\n"
                                               "initializer v2: float32[6,6,1,1] = random(9)\n" + body);
    CHECK(run.outcome.changed);
    CHECK(run.outcome.counts["equalized"] >= 2);
  }
}

TEST_CASE("an Add behind a MatMul is its bias") {
  const PassRun run = run_pass(pass, "model ir=8 opset=17\ninput x: float32[2,5,4]\ninitializer w: float32[4,6] = random(1,-9,9)\n"
                                     "initializer k: float32[6] = random(2,-9,9)\ninitializer one: float32[] = {3}\n"
                                     "initializer v: float32[6,3] = random(3,-0.1,0.1)\nt = MatMul(x, w)\na = Add(k, t)\nc = Sub(a, one)\nb = Relu(c)\n"
                                     "y = MatMul(b, v)\noutput y\n");
  CHECK(run.outcome.changed);
  CHECK(run.outcome.counts["equalized"] == 2);
}

TEST_CASE("transposed convolutions, with groups") {
  for (const std::string groups : {"1", "2"}) {
    const std::string rows = groups == "1" ? "6" : "3";
    const PassRun run = run_pass(pass, "model ir=8 opset=17\ninput x: float32[1,4,5,5]\ninitializer w: float32[4," + rows +
                                           ",2,2] = random(1,-9,9)\ninitializer k: float32[6] = random(2)\n"
                                           "initializer v: float32[6,2,3,3] = random(3,-0.1,0.1)\na = ConvTranspose(x, w, k) {group=" + groups +
                                           ", strides=[2,2]}\nb = Relu(a)\ny = ConvTranspose(b, v)\noutput y\n");
    CHECK(run.outcome.counts["equalized"] == 2);
  }
}

TEST_CASE("a BatchNormalization that stays takes factors on either side") {
  std::unique_ptr<Model> model = parse_model(
      "model ir=8 opset=17\ninput x: float32[2,3,6,6]\ninitializer w: float32[6,3,3,3] = random(1)\ninitializer g: float32[6] = random(2,0.5,2)\n"
      "initializer o: float32[6] = random(3)\ninitializer m: float32[6] = random(4)\ninitializer s: float32[6] = random(5,0.5,2)\n"
      "initializer v: float32[4,6,1,1] = random(6)\na = Conv(x, w)\nn = BatchNormalization(a, g, o, m, s)\nb = Relu(n)\ny = Conv(b, v)\noutput y\n");
  const std::vector<double> factors = unlike_factors(6, 3, 1);
  scale_constant(*model, "w", 0, factors);
  scale_constant(*model, "g", 0, factors);
  scale_constant(*model, "o", 0, factors);
  scale_constant(*model, "v", 1, inverse(factors));
  const PassRun run = run_pass(pass, std::move(model));
  CHECK(run.outcome.counts["equalized"] == 2);
  CHECK(spread(*run.after, "w", 0) < 1.1);
  CHECK(spread(*run.after, "v", 1) < 4);
}

TEST_CASE("16-bit models are scaled by powers of two, which loses nothing") {
  std::unique_ptr<Model> model = parse_model(
      "model ir=8 opset=17\ninput x: float16[n,4]\ninitializer w: float16[4,6] = random(1)\ninitializer v: float16[6,3] = random(2)\n"
      "a = MatMul(x, w)\nb = Relu(a)\ny = MatMul(b, v)\noutput y: float16[n,3]\n");
  const std::vector<double> factors{16, 0.25, 1, 64, 0.125, 2};
  scale_constant(*model, "w", 1, factors);
  scale_constant(*model, "v", 0, inverse(factors));
  const PassRun run = run_pass(pass, std::move(model));
  CHECK(run.outcome.changed);
  CHECK(spread(*run.after, "w", 1) < 8);
  const std::vector<float> before = initializer(*run.before, "w").constant()->to_floats(), after = initializer(*run.after, "w").constant()->to_floats();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const float ratio = after[i] / before[i];
    CHECK(std::exp2(std::round(std::log2(ratio))) == ratio);
  }
}

TEST_CASE("subgraphs, and values that they capture") {
  const PassRun run = run_pass(pass, "model ir=8 opset=17\ninput x: float32[1,4]\ninput c: bool[]\ninitializer w: float32[4,6] = random(1,-9,9)\n"
                                     "a = MatMul(x, w)\nb = Relu(a)\ny = If(c) {then_branch=graph {\n"
                                     "  initializer v: float32[6,3] = random(2,-0.1,0.1)\n  t = MatMul(b, v)\n  output t\n}, else_branch=graph {\n"
                                     "  initializer u: float32[6,5] = random(3,-0.1,0.1)\n  initializer q: float32[5,3] = random(4,-9,9)\n"
                                     "  s = MatMul(b, u)\n  r = Relu(s)\n  e = MatMul(r, q)\n  output e\n}}\noutput y\n");
  CHECK(run.outcome.changed);
  CHECK(run.outcome.counts["equalized"] == 4);
}

TEST_CASE("what is no scale's business stays, and says why") {
  const auto reason = [](const std::string& text) {
    const PassRun run = check_unchanged(pass, text);
    std::string reasons;
    for (const NearMiss& miss : run.near_misses) reasons += miss.reason + "\n";
    return reasons;
  };
  const auto has = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
  CHECK(has(reason(pair("b = Clip(a, low, high)\n", "initializer low: float32[] = {0}\ninitializer high: float32[] = {6}\n")), "not homogeneous"));
  CHECK(has(reason(pair("b = Sigmoid(a)\n")), "not homogeneous"));
  CHECK(has(reason(pair("b = Relu(a)\noutput b\n")), "'b' is an output"));
  CHECK(has(reason(pair("b = Relu(a)\nz = Softmax(b)\noutput z\n")), "not homogeneous"));
  CHECK(has(reason(pair("b = Mul(a, a)\n")), "multiplies two values"));
  CHECK(has(reason(pair("b = Pad(a, widths, one)\n", "initializer widths: int64[8] = {0,0,1,1,0,0,1,1}\ninitializer one: float32[] = {1}\n")), "pads with other"));
  CHECK(has(reason("model ir=8 opset=17\ninput x: float32[1,6]\ninitializer w: float32[6,6] = random(1,-9,9)\na = MatMul(x, w)\nb = Relu(a)\n"
                   "y = MatMul(b, w)\noutput y\n"),
            "'w' has another reader"));
}

TEST_CASE("only what is selected") {
  const PassRun run = run_unlike(pair("b = Relu(a)\n"), "equalize{select='!name:second'}");
  CHECK_FALSE(run.outcome.changed);
}

TEST_CASE("channels that nothing is read of, or that are zero, stay") {
  std::unique_ptr<Model> model = parse_model(pair("b = Relu(a)\n"));
  scale_constant(*model, "w", 0, {1, 0, 100, 1, 1, 1});
  scale_constant(*model, "v", 1, {1, 1, 1, 0, 1, 1});
  const PassRun run = run_pass(pass, std::move(model));
  CHECK(run.outcome.changed);
}

TEST_CASE("a bias that no Relu cuts goes into the next layer") {
  const std::string text = "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer w: float32[2,2] = {1,1,1,-1}\ninitializer k: float32[2] = {5,5}\n"
                           "initializer v: float32[2,2] = {1,1,1,1}\ninitializer z: float32[2] = {0,1}\np = Sigmoid(x)\n"
                           "a = Gemm(p, w, k)\nb = Relu(a)\ny = Gemm(b, v, z)\noutput y: float32[n,2]\n";
  const PassRun run = run_pass(pass, text);
  CHECK(run.outcome.counts["biases_absorbed"] == 1);
  CHECK(initializer(*run.after, "k").constant()->to_floats()[0] == 0);
  CHECK(initializer(*run.after, "z").constant()->to_floats() == std::vector<float>{5, 6});
  CHECK_FALSE(run_pass(pass, run.after->clone()).outcome.changed);
  CHECK(run_pass("equalize{absorb=none}", text).outcome.counts["biases_absorbed"] == 0);
}

TEST_CASE("absorb_biases moves what a BatchNormalization makes likely; padding does not allow it") {
  const auto text = [](const std::string& attributes) {
    return "model ir=8 opset=17\ninput x: float32[1,2,5,5]\ninitializer g: float32[2] = {1,1}\ninitializer o: float32[2] = {10,1}\n"
           "initializer m: float32[2] = {0,0}\ninitializer s: float32[2] = {1,1}\ninitializer v: float32[3,2,3,3] = random(6)\n"
           "a = BatchNormalization(x, g, o, m, s)\nb = Relu(a)\ny = Conv(b, v)" + attributes + "\noutput y\n";
  };
  const PassRun run = run_pass("absorb_biases", text(""));
  CHECK(run.outcome.counts["likely"] == 1);
  CHECK(initializer(*run.after, "o").constant()->to_floats()[0] == doctest::Approx(3));
  // Standard normal inputs are never as low as -7: the outputs are the same.
  CHECK(run.errors[0].snr_db > 100);
  CHECK_FALSE(run_pass("absorb_biases", text(" {pads=[1,1,1,1]}")).outcome.changed);
}

TEST_CASE("relax_clips makes Relu of Clip from 0, and of no other") {
  const auto text = [](const std::string& low) {
    return "model ir=8 opset=17\ninput x: float32[4]\ninitializer low: float32[] = {" + low + "}\ninitializer high: float32[] = {6}\n"
           "y = Clip(x, low, high)\noutput y\n";
  };
  const PassRun run = run_pass("relax_clips", text("0"));
  CHECK(run.outcome.counts["relaxed"] == 1);
  CHECK(run.after->graph.nodes()[0]->is("Relu"));
  CHECK_FALSE(run_pass("relax_clips", text("-1")).outcome.changed);
}

}  // namespace
}  // namespace onnxpress
