// Masks in front of Softmax, and the ranges chosen there.
#include <doctest/doctest.h>

#include "graph/exec/metrics.h"
#include "tests/passes/common/listed_data.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

// One head of attention; `masked` makes "masked" of the scores "s" and of m, 1 where one may look.
std::string attention(const std::string& masked) {
  return R"(model ir=8 opset=17
input x: float32[2,12,128]
input m: float32[2,1,12]
initializer wq: float32[128,128] = random(1,-0.05,0.05)
initializer wk: float32[128,128] = random(2,-0.05,0.05)
initializer one: float32[] = {1}
initializer bias: float32[1,12,12] = random(3)
q = MatMul(x, wq)
k = MatMul(x, wk)
t = Transpose(k) {perm=[0,2,1]}
s = MatMul(q, t)
)" + masked + R"(
p = Softmax(masked)
y = MatMul(p, x)
output y: float32[2,12,128]
)";
}

std::vector<Tensor> sample(std::uint64_t seed) {
  Tensor mask(DType::float32, {2, 1, 12});
  for (std::size_t i = 0; i < 24; ++i) mask.mutable_data<float>()[i] = i % 12 < 7 + seed % 3 ? 1.0F : 0.0F;
  return {normal_tensor({2, 12, 128}, seed), mask};
}

PassRun run_quantize(const std::string& options, const std::string& model) {
  ListedData data({sample(1), sample(2), sample(3), sample(4)});
  return run_pass("quantize{" + options + "}", model, {.calibration = &data});
}

double scale_of(const PassRun& run, const std::string& tensor) {
  for (const Json& layer : run.outcome.layers)
    if (layer["tensor"] == tensor) return layer["scale_max"].get<double>();
  return 0;
}

double output_snr_db(const PassRun& run) {
  Engine before(*run.before), after(*run.after);
  const std::vector<Tensor> inputs = sample(5);
  const std::vector<float> exact = before.run(inputs)[0].to_floats(), found = after.run(inputs)[0].to_floats();
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double value = exact[i], error = value - static_cast<double>(found[i]);
    signal += value * value;
    noise += error * error;
  }
  return 10 * std::log10(signal / noise);
}

bool has_note(const PassRun& run, std::string_view text) {
  return std::ranges::any_of(run.outcome.notes, [&](const std::string& note) { return note.find(text) != std::string::npos; });
}

TEST_CASE("what a mask makes of scores is left out of the range that Softmax reads") {
  const std::string inverse = "i = Sub(one, m)\n";
  const std::string choice = "initializer half: float32[] = {0.5}\nc = Greater(m, half)\n";
  for (const std::string lowest : {"-10000", "-1000000000", "-3.4028235e38"}) {
    const std::string constant = "initializer lowest: float32[] = {" + lowest + "}\n";
    for (const std::string& masked :
         {constant + inverse + "a = Mul(i, lowest)\nmasked = Add(s, a)",
          constant + inverse + "a = Mul(i, lowest)\nb = Add(s, bias)\nmasked = Add(b, a)",
          constant + inverse + "a = Mul(i, lowest)\nb = Add(bias, a)\nmasked = Add(b, s)", constant + choice + "masked = Where(c, s, lowest)",
          constant + inverse + "a = Mul(i, lowest)\nb = Add(s, a)\nmasked = Identity(b)"}) {
      CAPTURE(masked);
      const PassRun run = run_quantize("target=qnn", attention(masked));
      const double scale = scale_of(run, "masked") > 0 ? scale_of(run, "masked") : scale_of(run, "b");
      CHECK(scale > 0);
      CHECK(scale < 0.5);
      CHECK(has_note(run, "hold a mask, which their ranges leave out"));
      CHECK(!has_note(run, "in steps of"));
      CHECK(output_snr_db(run) > 15);
    }
  }
}

TEST_CASE("masks that are constants, given or computed, are cut off too") {
  const std::string triangle = R"(initializer lowest: float32[1] = {-3.4028235e38}
initializer one_up: int64[] = {1}
initializer dims: int64[2] = {12,12}
full = Expand(lowest, dims)
a = Trilu(full, one_up)
masked = Add(s, a)
)";
  const PassRun computed = run_quantize("target=qnn", attention(triangle));
  CHECK(scale_of(computed, "masked") > 0);
  CHECK(scale_of(computed, "masked") < 0.5);
  CHECK(output_snr_db(computed) > 15);
  std::string rows;
  for (int i = 0; i < 12; ++i)
    for (int j = 0; j < 12; ++j) rows += fmt::format("{}{}", i + j == 0 ? "" : ",", j > i ? "-1e9" : "0");
  const PassRun given = run_quantize("target=qnn", attention("initializer a: float32[12,12] = {" + rows + "}\nmasked = Add(s, a)\n"));
  CHECK(scale_of(given, "a") < 0.5);
  CHECK(scale_of(given, "masked") < 0.5);
  CHECK(output_snr_db(given) > 15);
  // Softmax has the scale of [0, 1], whatever its largest result.
  CHECK(scale_of(given, "p") == doctest::Approx(1 / 255.0));
}

TEST_CASE("ranges without a mask, and those that others read too, are the full ones") {
  const PassRun plain = run_quantize("target=qnn,calibration=minmax", attention("masked = Add(s, bias)"));
  CHECK(!has_note(plain, "mask"));
  const std::string shared = attention("initializer lowest: float32[] = {-10000}\ni = Sub(one, m)\na = Mul(i, lowest)\nmasked = Add(s, a)");
  const PassRun read = run_quantize("target=qnn,calibration=minmax", shared + "z = Relu(masked)\noutput z: float32[2,12,12]\n");
  CHECK(scale_of(read, "masked") > 30);
  CHECK(has_note(read, "in steps of 39"));
  // Where Softmax stays in float, nothing in front of it is on codes.
  const PassRun float_softmax = run_quantize("target=ort-cpu", shared);
  CHECK(scale_of(float_softmax, "masked") == 0);
}

}  // namespace
}  // namespace onnxpress
