#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "passes/core/runner.h"
#include "tests/graph/exec/given_data.h"
#include "tests/passes/quantize/channels.h"

namespace onnxpress {
namespace {

// A layer normalization with two large channels, read by two products.
const std::string normalized =
    "model ir=8 opset=17\ninput x: float32[n,5,8]\ninitializer g: float32[8] = {1,50,1,1,1,-80,1,1}\ninitializer o: float32[8] = random(2)\n"
    "initializer w: float32[8,6] = random(3)\ninitializer v: float32[8,4] = random(4)\na = LayerNormalization(x, g, o)\n"
    "y = MatMul(a, w) \"one\"\nz = MatMul(a, v) \"two\"\noutput y\noutput z\n";

PassRun run_with_data(const std::string& step, const std::string& text, const std::string& x = "float32[32,5,8] random(9,-1.0,1.0)") {
  GivenData data(parse_tensor(x), Tensor(), 8);
  PassRunOptions options;
  options.calibration = &data;
  return run_pass(step, text, options);
}

std::string reasons(const PassRun& run) {
  std::string text;
  for (const NearMiss& miss : run.near_misses) text += miss.reason + "\n";
  return text;
}

TEST_CASE("smooth_quant divides large channels in the normalization and multiplies the rows behind") {
  const PassRun run = run_with_data("smooth_quant", normalized);
  CHECK(run.outcome.counts["smoothed"] == 1);
  CHECK(run.after->graph.node_count() == run.before->graph.node_count());
  const std::vector<float> gamma = initializer(*run.after, "g").constant()->to_floats();
  CHECK(std::fabs(gamma[5] / gamma[0]) < 25);
  CHECK(spread(*run.after, "w", 0) > spread(*run.before, "w", 0));
  REQUIRE(run.outcome.layers.size() == 2);
  CHECK(run.outcome.layers[0]["input_peak_over_mean_after"] < run.outcome.layers[0]["input_peak_over_mean_before"]);
  GivenData data(parse_tensor("float32[32,5,8] random(9,-1.0,1.0)"), Tensor(), 8);
  PassRunOptions options;
  options.calibration = &data;
  CHECK_FALSE(run_pass("smooth_quant", run.after->clone(), options).outcome.changed);
}

TEST_CASE("smooth_quant: alpha says how much") {
  const auto peak = [](double alpha) {
    const PassRun run = run_with_data(fmt::format("smooth_quant{{alpha={}}}", alpha), normalized);
    return run.outcome.layers[0]["input_peak_over_mean_after"].get<double>();
  };
  CHECK(peak(1) == doctest::Approx(1).epsilon(0.01));
  CHECK(peak(0.2) > peak(0.5));
  CHECK(peak(0.5) > peak(0.8));
}

TEST_CASE("smooth_quant leaves channels that others read, unless it may insert a Mul") {
  const std::string shared = normalized + "s = Softmax(a)\noutput s\n";
  const PassRun left = run_with_data("smooth_quant", shared);
  CHECK_FALSE(left.outcome.changed);
  CHECK(reasons(left).find("can take no factors") != std::string::npos);
  const PassRun run = run_with_data("smooth_quant{insert=true}", shared);
  CHECK(run.outcome.counts["smoothed"] == 1);
  CHECK(run.after->graph.node_count() == run.before->graph.node_count() + 1);
  CHECK(run.outcome.layers[0]["taken_by"] == "a Mul");
}

TEST_CASE("smooth_quant folds into a Mul, a product and a normalization written out") {
  for (const std::string front :
       {"initializer f: float32[8] = {1,50,1,1,1,-80,1,1}\nr = Sin(x)\na = Mul(r, f)\n",
        "initializer f: float32[8,8] = random(6,-9,9)\ninitializer k: float32[8] = random(7)\nr = MatMul(x, f)\nt = Add(r, k)\na = Relu(t)\n",
        "initializer f: float32[8] = {1,50,1,1,1,-80,1,1}\ninitializer k: float32[8] = random(7)\nr = Sin(x)\nt = Mul(r, f)\na = Add(t, k)\n"}) {
    CAPTURE(front);
    const PassRun run = run_with_data("smooth_quant", "model ir=8 opset=17\ninput x: float32[n,5,8]\ninitializer w: float32[8,6] = random(3,-0.01,0.01)\n" +
                                                          front + "y = MatMul(a, w)\noutput y\n");
    CHECK(run.outcome.changed);
    CHECK(run.after->graph.node_count() == run.before->graph.node_count());
  }
}

TEST_CASE("awq: rounded weights give outputs nearer to the original's") {
  const auto error = [](const Model& before, const Model& after) {
    const std::vector<std::vector<Tensor>> inputs{{parse_tensor("float32[32,5,8] random(9,-1.0,1.0)")}};
    double noise = 0;
    for (const OutputError& output : compare_outputs(before, after, inputs)) noise += std::pow(10, -output.snr_db / 10);
    return noise;
  };
  const std::string round = "quantize_weights{bits=4,storage=smallest}";
  const auto quantized = [&](const Model& model) {
    std::unique_ptr<Model> copy = model.clone();
    return run_pipeline(std::move(copy), Pipeline::parse("upgrade_opset{target=21}," + round), {}).model;
  };
  // Long enough columns that weights shrink.
  std::string text = normalized;
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"float32[8,6]", "float32[8,600]"}, {"float32[8,4]", "float32[8,400]"}})
    text.replace(text.find(from), from.size(), to);
  const PassRun run = run_with_data("awq{bits=4,block=0}", text);
  CHECK(run.outcome.counts["scaled"] == 1);
  for (const Json& layer : run.outcome.layers) {
    CHECK(layer["error_ratio"] < 1);
    CHECK(layer["exponent"] > 0);
  }
  CHECK(error(*run.before, *quantized(*run.after)) < 0.8 * error(*run.before, *quantized(*run.before)));
}

TEST_CASE("awq leaves a layer whose activations are alike") {
  const PassRun run = run_with_data("awq{grid=4}", "model ir=8 opset=17\ninput x: float32[n,4]\ninitializer f: float32[4] = {1,1,1,1}\n"
                                                   "initializer w: float32[4,4] = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}\na = Mul(x, f)\ny = MatMul(a, w)\noutput y\n",
                                    "float32[8,4] ones");
  CHECK_FALSE(run.outcome.changed);
}

TEST_CASE("both need calibration data") {
  for (const std::string step : {"smooth_quant", "awq", "reestimate_batch_norm"})
    CHECK_THROWS_WITH_AS(run_pipeline(parse_model(normalized), Pipeline::parse(step), {}), doctest::Contains("--calib"), Error);
}

}  // namespace
}  // namespace onnxpress
