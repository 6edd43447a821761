#include <doctest/doctest.h>

#include <algorithm>

#include "passes/common/channel_moments.h"
#include "tests/graph/exec/given_data.h"
#include "tests/passes/quantize/channels.h"

namespace onnxpress {
namespace {

const std::string two_in_a_row =
    "model ir=8 opset=17\ninput x: float32[n,3,4,4]\ninitializer w: float32[4,3,3,3] = random(1)\ninitializer g: float32[4] = {1,2,3,4}\n"
    "initializer o: float32[4] = random(2)\ninitializer m: float32[4] = {9,9,9,9}\ninitializer s: float32[4] = {5,5,5,5}\n"
    "initializer v: float32[4,4,1,1] = random(3)\na = Conv(x, w)\nb = BatchNormalization(a, g, o, m, s) \"first\"\nc = Relu(b)\n"
    "d = Conv(c, v)\ny = BatchNormalization(d, g, o, m, s) \"second\"\noutput y\n";

PassRun run_on(const std::string& step, const std::string& text, const std::string& x = "float32[50,3,4,4] random(9,0.0,3.0)", bool pad = false) {
  GivenData data(parse_tensor(x), Tensor(), 8, pad);
  PassRunOptions options;
  options.calibration = &data;
  return run_pass(step, text, options);
}

TEST_CASE("moments of channels are those of all elements, padding left out") {
  const Tensor x = parse_tensor("float32[13,2,3] random(5,-1.0,4.0)");
  const std::vector<float> values = x.to_floats();
  const auto model = parse_model("model ir=8 opset=17\ninput x: float32[n,2,3]\ny = Identity(x)\noutput y\n");
  ThreadPool pool(1);
  const Options none;
  for (const bool pad : {false, true}) {
    GivenData data(x, Tensor(), 5, pad);
    PassContext context{.options = none, .pool = pool, .calibration = &data};
    const ChannelMoments found = measure_moments(*model, {{"y", 1}}, context)[0];
    CHECK(found.count == 39);
    for (std::size_t c = 0; c < 2; ++c) {
      double sum = 0, squares = 0;
      for (std::size_t n = 0; n < 13; ++n)
        for (std::size_t i = 0; i < 3; ++i) sum += static_cast<double>(values[(n * 2 + c) * 3 + i]);
      const double mean = sum / 39;
      for (std::size_t n = 0; n < 13; ++n)
        for (std::size_t i = 0; i < 3; ++i) squares += std::pow(static_cast<double>(values[(n * 2 + c) * 3 + i]) - mean, 2);
      CHECK(found.mean[c] == doctest::Approx(mean));
      CHECK(found.variance[c] == doctest::Approx(squares / 39));
    }
  }
}

TEST_CASE("what is behind a re-estimated BatchNormalization has mean beta and deviation gamma, in a chain too") {
  const PassRun run = run_on("reestimate_batch_norm", two_in_a_row);
  CHECK(run.outcome.counts["reestimated"] == 2);
  GivenData data(parse_tensor("float32[50,3,4,4] random(9,0.0,3.0)"), Tensor(), 50);
  ThreadPool pool(1);
  const Options none;
  PassContext context{.options = none, .pool = pool, .calibration = &data};
  const std::vector<float> beta = initializer(*run.after, "o").constant()->to_floats();
  for (const std::string value : {"b", "y"}) {
    const ChannelMoments found = measure_moments(*run.after, {{value, 1}}, context)[0];
    for (std::size_t c = 0; c < 4; ++c) {
      CHECK(found.mean[c] == doctest::Approx(static_cast<double>(beta[c])).epsilon(0.001).scale(1));
      CHECK(found.variance[c] == doctest::Approx(static_cast<double>((c + 1) * (c + 1))).epsilon(0.001));
    }
  }
  // Constants that the two shared are two now.
  CHECK(run.after->graph.nodes()[1]->input(3) != run.after->graph.nodes()[4]->input(3));
}

TEST_CASE("momentum keeps a share of the old; only what is selected") {
  const PassRun run = run_on("reestimate_batch_norm{momentum=1}", two_in_a_row);
  CHECK_FALSE(run.outcome.changed);
  const PassRun first = run_on("reestimate_batch_norm{select='name:first'}", two_in_a_row);
  CHECK(first.outcome.counts["reestimated"] == 1);
  CHECK(initializer(*first.after, "m").constant()->to_floats() == std::vector<float>{9, 9, 9, 9});
}

TEST_CASE("a model without any says so") {
  const PassRun run = run_on("reestimate_batch_norm", "model ir=8 opset=17\ninput x: float32[n,3]\ny = Relu(x)\noutput y\n", "float32[4,3] ones");
  REQUIRE(run.outcome.notes.size() == 1);
  CHECK(run.outcome.notes[0].find("no BatchNormalization") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
