#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "graph/exec/engine.h"
#include "passes/quantize/bias_correction.h"
#include "passes/common/channel_moments.h"
#include "tests/graph/exec/given_data.h"
#include "tests/passes/quantize/channels.h"

namespace onnxpress {
namespace {

// Means by channel of a value on the data.
std::vector<double> means(const Model& model, const std::string& value, PassContext& context, std::int64_t axis) {
  return measure_moments(model, {{value, axis}}, context)[0].mean;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  return largest;
}

const std::string convolutions =
    "model ir=8 opset=17\ninput x: float32[n,3,6,6]\ninitializer w: float32[8,3,3,3] = random(1)\ninitializer k: float32[8] = random(2)\n"
    "initializer v: float32[4,8,3,3] = random(3)\na = Conv(x, w, k) \"first\"\nb = Relu(a)\ny = Conv(b, v) \"second\"\noutput y\n";

// Every weight off by something that does not average out.
void disturb(Model& model, std::string_view name, double by) {
  Value& value = initializer(model, name);
  std::vector<float> values = value.constant()->to_floats();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += static_cast<float>(by * (1 + 0.3 * static_cast<double>(i % 5)));
  model.graph.set_initializer(&value, Tensor::of<float>(value.constant()->dims(), values));
}

struct Case {
  std::unique_ptr<Model> original, quantized;
  GivenData data;
  ThreadPool pool{2};
  Options options;
  std::vector<NearMiss> misses;
  PassContext context{.options = options, .pool = pool, .calibration = &data, .near_misses = &misses};
  Outcome outcome;

  explicit Case(const std::string& text, const std::string& x = "float32[40,3,6,6] random(9,0.0,2.0)")
      : original(parse_model(text)), quantized(original->clone()), data(parse_tensor(x), Tensor(), 16) {}
};

TEST_CASE("empirical: means are those of the original again, layer after layer") {
  Case test(convolutions);
  disturb(*test.quantized, "w", 0.05);
  disturb(*test.quantized, "v", 0.03);
  for (const std::string value : {"a", "y"})
    CHECK(largest_difference(means(*test.original, value, test.context, 1), means(*test.quantized, value, test.context, 1)) > 0.3);
  correct_biases(*test.quantized, *test.original, BiasCorrection::empirical, test.context, test.outcome);
  CHECK(test.outcome.counts["biases_corrected"] == 2);
  for (const std::string value : {"a", "y"})
    CHECK(largest_difference(means(*test.original, value, test.context, 1), means(*test.quantized, value, test.context, 1)) < 1e-4);
  // The second had no bias.
  REQUIRE(test.quantized->graph.nodes()[2]->input(2) != nullptr);
  CHECK(test.quantized->graph.nodes()[2]->input(2)->constant()->dims() == Dims{4});
  CHECK_NOTHROW(verify(*test.quantized));
}

TEST_CASE("empirical needs data") {
  Case test(convolutions);
  test.context.calibration = nullptr;
  CHECK_THROWS_WITH_AS(correct_biases(*test.quantized, *test.original, BiasCorrection::empirical, test.context, test.outcome),
                       doctest::Contains("--calib"), Error);
}

TEST_CASE("analytic: the difference of weights times the mean behind BatchNormalization") {
  const std::string text =
      "model ir=8 opset=17\ninput x: float32[n,2,4,4]\ninitializer g: float32[2] = {1,2}\ninitializer o: float32[2] = {3,-1}\n"
      "initializer m: float32[2] = {0.5,0.5}\ninitializer s: float32[2] = {1,1}\ninitializer w: float32[2,2,1,1] = {1,2,3,4}\n"
      "initializer k: float32[2] = {10,20}\na = BatchNormalization(x, g, o, m, s)\ny = Conv(a, w, k) \"conv\"\noutput y\n";
  Case test(text, "float32[4,2,4,4] random(9)");
  Value& weight = initializer(*test.quantized, "w");
  test.quantized->graph.set_initializer(&weight, Tensor::of<float>({2, 2, 1, 1}, std::vector<float>{1.5F, 2, 3, 3}));
  correct_biases(*test.quantized, *test.original, BiasCorrection::analytic, test.context, test.outcome);
  // 0.5 * 3 and -1 * -1.
  CHECK(initializer(*test.quantized, "k").constant()->to_floats() == std::vector<float>{8.5F, 19});
  CHECK(test.outcome.counts["biases_corrected"] == 1);
  CHECK(test.outcome.notes.empty());
}

TEST_CASE("analytic without statistics says what it rests on, and leaves what it cannot know") {
  Case test(convolutions);
  disturb(*test.quantized, "v", 0.03);
  correct_biases(*test.quantized, *test.original, BiasCorrection::analytic, test.context, test.outcome);
  CHECK(test.outcome.counts["biases_corrected"] == 1);
  REQUIRE(test.outcome.notes.size() == 1);
  CHECK(test.outcome.notes[0].find("standard normal") != std::string::npos);

  Case unknown("model ir=8 opset=17\ninput x: float32[n,3]\ninitializer w: float32[3,2] = random(1)\nz = Sin(x)\ny = Gemm(z, w)\noutput y\n",
               "float32[4,3] random(9)");
  disturb(*unknown.quantized, "w", 0.1);
  correct_biases(*unknown.quantized, *unknown.original, BiasCorrection::analytic, unknown.context, unknown.outcome);
  CHECK_FALSE(unknown.outcome.changed);
  REQUIRE(unknown.misses.size() == 1);
  CHECK(unknown.misses[0].reason.find("nothing is known") != std::string::npos);
}

TEST_CASE("int32 biases move by whole quanta; one that is missing is made of the operands' scales") {
  const std::string text =
      "model ir=8 opset=17\ninput x: float32[n,4]\ninitializer w: float32[4,2] = {1,2,3,4,1,2,3,4}\ninitializer k: float32[2] = {1,2}\n"
      "y = Gemm(x, w, k) \"fc\"\noutput y\n";
  const std::string coded =
      "model ir=8 opset=17\ninput x: float32[n,4]\ninitializer xs: float32[] = {0.01}\ninitializer xz: uint8[] = {128}\n"
      "initializer q: int8[4,2] = {10,20,30,40,10,20,30,44}\ninitializer ws: float32[2] = {0.1,0.1}\ninitializer kq: int32[2] = {1000,2000}\n"
      "initializer ks: float32[2] = {0.001,0.001}\nxq = QuantizeLinear(x, xs, xz)\nxd = DequantizeLinear(xq, xs, xz)\n"
      "wd = DequantizeLinear(q, ws) {axis=1}\nkd = DequantizeLinear(kq, ks) {axis=0}\ny = Gemm(xd, wd";
  const auto run = [&](const std::string& bias) {
    Case test(bias == ", kd" ? text : "model ir=8 opset=17\ninput x: float32[n,4]\ninitializer w: float32[4,2] = {1,2,3,4,1,2,3,4}\ny = Gemm(x, w) \"fc\"\noutput y\n",
              "float32[64,4] random(9,0.5,1.0)");
    std::string quantized = coded + bias + ") \"fc\"\noutput y\n";
    if (bias.empty()) quantized.erase(quantized.find("kd ="), quantized.find("y = Gemm") - quantized.find("kd ="));
    test.quantized = parse_model(quantized);
    correct_biases(*test.quantized, *test.original, BiasCorrection::empirical, test.context, test.outcome);
    CHECK_NOTHROW(verify(*test.quantized));
    CHECK(test.outcome.counts["biases_corrected"] == 1);
    CHECK(largest_difference(means(*test.original, "y", test.context, 1), means(*test.quantized, "y", test.context, 1)) < 0.0011);
    const Node* made = test.quantized->graph.nodes().back()->input(2)->producer();
    REQUIRE(made != nullptr);
    CHECK(made->is("DequantizeLinear"));
    CHECK(made->input(0)->constant()->dtype() == DType::int32);
  };
  run(", kd");
  run("");
}

TEST_CASE("the Add behind a MatMul is its bias, one value grows to one per channel") {
  Case test("model ir=8 opset=17\ninput x: float32[n,5,4]\ninitializer w: float32[4,3] = random(1)\ninitializer k: float32[] = {1}\n"
            "t = MatMul(x, w) \"fc\"\ny = Add(t, k)\noutput y\n",
            "float32[8,5,4] random(9,0.0,2.0)");
  disturb(*test.quantized, "w", 0.1);
  correct_biases(*test.quantized, *test.original, BiasCorrection::empirical, test.context, test.outcome);
  CHECK(initializer(*test.quantized, "k").constant()->dims() == Dims{3});
  CHECK(largest_difference(means(*test.original, "y", test.context, -1), means(*test.quantized, "y", test.context, -1)) < 1e-5);
}

}  // namespace
}  // namespace onnxpress
