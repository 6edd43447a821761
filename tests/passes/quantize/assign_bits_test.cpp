#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "passes/quantize/diagnosis.h"
#include "passes/quantize/sensitivity.h"
#include "tests/graph/exec/given_data.h"
#include "tests/passes/common/listed_data.h"
#include "tests/passes/quantize/channels.h"

namespace onnxpress {
namespace {

// Three products; one element in every column of the second weight is far larger than the others, so
// that few levels are left for these.
std::unique_ptr<Model> sensitive_in_the_middle() {
  std::unique_ptr<Model> model = parse_model(
      "model ir=10 opset=21\ninput x: float32[n,48]\ninitializer w: float32[48,64] = random(1)\ninitializer v: float32[64,64] = random(2)\n"
      "initializer u: float32[64,10] = random(3)\na = MatMul(x, w) \"one\"\nb = Relu(a)\nc = MatMul(b, v) \"two\"\nd = Relu(c)\n"
      "y = MatMul(d, u) \"three\"\noutput y: float32[n,10]\n");
  Value& value = initializer(*model, "v");
  std::vector<float> values = value.constant()->to_floats();
  for (std::size_t i = 0; i < 64; ++i) values[i] *= 40;
  // The large row meets nothing: its channel is always cut off.
  model->graph.set_initializer(&value, Tensor::of<float>({64, 64}, values));
  Value& first = initializer(*model, "w");
  std::vector<float> columns = first.constant()->to_floats();
  for (std::size_t row = 0; row < 48; ++row) columns[row * 64] = 0;
  model->graph.set_initializer(&first, Tensor::of<float>({48, 64}, columns));
  return model;
}

Tensor data_of(std::int64_t rows) { return parse_tensor(fmt::format("float32[{},48] random(9,-1.0,1.0)", rows)); }

PassRun run_auto(const std::string& options, std::unique_ptr<Model> model, const Tensor& labels = Tensor()) {
  GivenData data(data_of(128), labels, 32);
  PassRunOptions run;
  run.calibration = &data;
  return run_pass("quantize{scheme=weights,bits=auto," + options + "}", std::move(model), run);
}

int bits_of(const PassRun& run, std::string_view tensor) {
  for (const Json& layer : run.outcome.layers)
    if (layer["tensor"] == tensor) return layer["bits"].get<int>();
  return 0;
}

// What stays in float takes 32.
double bits_per_weight(const PassRun& run) {
  double bits = 0, elements = 0;
  for (const std::string tensor : {"w", "v", "u"}) {
    const auto count = static_cast<double>(initializer(*run.before, tensor).constant()->size());
    const auto layer = std::ranges::find_if(run.outcome.layers, [&](const Json& record) { return record["tensor"] == tensor; });
    bits += layer == run.outcome.layers.end() ? 32 * count : 8 * (*layer)["bytes_after"].get<double>();
    elements += count;
  }
  return bits / elements;
}

TEST_CASE("a budget goes to the layer that needs it") {
  const PassRun run = run_auto("budget=7bpw", sensitive_in_the_middle());
  CHECK(bits_per_weight(run) <= 7);
  CHECK(bits_of(run, "v") == 8);
  CHECK(bits_of(run, "w") == 4);
  for (const Json& layer : run.outcome.layers) CHECK(layer["alone"].get<std::string>().find("4: ") != std::string::npos);
  const bool tells = std::ranges::any_of(run.outcome.notes, [](const std::string& note) { return note.find("bits per weight with scales") != std::string::npos; });
  CHECK(tells);
}

TEST_CASE("a budget that allows 8 bits everywhere takes them; one below the narrowest width is refused") {
  const PassRun run = run_auto("budget=9.5bpw", sensitive_in_the_middle());
  for (const std::string_view tensor : {"w", "v", "u"}) CHECK(bits_of(run, tensor) == 8);
  GivenData data(data_of(32), Tensor(), 32);
  ThreadPool pool(1);
  const Pipeline pipeline = Pipeline::parse("quantize{scheme=weights,bits=auto,budget=3bpw}");
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .calibration = &data};
  const std::unique_ptr<Model> model = sensitive_in_the_middle();
  CHECK_THROWS_WITH_AS(pipeline.steps[0].pass->run(*model, context), doctest::Contains("less than the narrowest"), Error);
}

TEST_CASE("neither budget nor max_drop is an error") {
  GivenData data(data_of(32), Tensor(), 32);
  ThreadPool pool(1);
  const Pipeline pipeline = Pipeline::parse("quantize{scheme=weights,bits=auto}");
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .calibration = &data};
  const std::unique_ptr<Model> model = sensitive_in_the_middle();
  CHECK_THROWS_WITH_AS(pipeline.steps[0].pass->run(*model, context), doctest::Contains("expected budget"), Error);
}

TEST_CASE("max_drop takes the fewest bits that agree often enough") {
  const PassRun loose = run_auto("max_drop=50%", sensitive_in_the_middle());
  const PassRun tight = run_auto("max_drop=0", sensitive_in_the_middle());
  CHECK(bits_per_weight(loose) < bits_per_weight(tight));
  const std::vector<std::vector<Tensor>> inputs{{data_of(128)}};
  CHECK(compare_outputs(*tight.before, *tight.after, inputs)[0].top1_agreement == 1.0);
}

TEST_CASE("what the user's overrides say stays so") {
  const PassRun run = run_auto("budget=7bpw,overrides='name:one=8;name:three=float'", sensitive_in_the_middle());
  CHECK(bits_of(run, "w") == 8);
  CHECK(bits_of(run, "u") == 0);
}

TEST_CASE("the judge counts agreement and labels, and knows broken outputs") {
  const std::unique_ptr<Model> model = sensitive_in_the_middle();
  ThreadPool pool(2);
  const Options none;
  std::vector<std::int64_t> labels(128, 3);
  GivenData data(data_of(128), Tensor::of<std::int64_t>({128}, labels), 50);
  PassContext context{.options = none, .pool = pool, .calibration = &data};
  const OutputJudge judge(*model, context, 1000);
  CHECK(judge.samples() == 128);
  const OutputQuality same = judge.judge(*model);
  CHECK(same.noise == 0);
  CHECK(std::isinf(same.snr_db()));
  CHECK(same.agreement == 1.0);
  REQUIRE(same.accuracy.has_value());
  CHECK(same.drop(judge.original()) == 0.0);
  std::unique_ptr<Model> twice = model->clone();
  scale_constant(*twice, "u", 1, std::vector<double>(10, 2));
  const OutputQuality doubled = judge.judge(*twice);
  CHECK(doubled.noise == doctest::Approx(1));
  CHECK(doubled.agreement == 1.0);
  std::unique_ptr<Model> broken = model->clone();
  scale_constant(*broken, "u", 1, std::vector<double>(10, std::nan("")));
  CHECK(std::isinf(judge.judge(*broken).noise));
  const OutputJudge few(*model, context, 60);
  CHECK(few.samples() == 100);  // whole batches
}

// Data that a calibration cache can tell from other data.
class NamedData final : public Dataset {
 public:
  NamedData(Tensor x, std::int64_t batch) : given_(std::move(x), Tensor(), batch) {}
  std::int64_t samples() const override { return given_.samples(); }
  bool labelled() const override { return false; }
  void rewind() override { given_.rewind(); }
  bool next(Batch& batch) override { return given_.next(batch); }
  std::string description() const override { return given_.description(); }
  std::string hash() const override { return "named"; }

 private:
  GivenData given_;
};

TEST_CASE("the own noise of a lookup is that of the floats that its codes become") {
  const std::unique_ptr<Model> model = parse_model(
      "model ir=10 opset=17\ninput x: int64[n,4]\ninitializer t: float32[50,32] = random(1)\n"
      "initializer w: float32[32,64] = random(2)\n"
      "e = Gather(t, x) \"lookup\"\ny = MatMul(e, w) \"product\"\noutput y: float32[n,4,64]\n");
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < 256; ++i) ids.push_back(i * 7 % 50);
  NamedData data(Tensor::of<std::int64_t>({64, 4}, ids), 32);
  const Pipeline pipeline = Pipeline::parse("quantize");
  const QuantizeRequest request = QuantizeRequest::from(pipeline.steps[0].options);
  ThreadPool pool(1);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .calibration = &data};
  QuantizationTrials trials(*model, context, request);
  const OutputJudge judge(*model, context, 64);
  const auto lookup = std::ranges::find(trials.units(), "lookup", &QuantizedUnit::node);
  REQUIRE(lookup != trials.units().end());
  const auto unit = static_cast<std::size_t>(lookup - trials.units().begin());
  const UnitSensitivity found = trials.measure(unit, 8, judge, true);
  REQUIRE(found.local_snr_db.has_value());
  CHECK(*found.local_snr_db > 35);
}

TEST_CASE("selectors for one name match nothing else") {
  CHECK(exact_selector("name", "a*b[0]") == "name:a\\*b\\[0\\]");
  CHECK(exact_selector("tensor", "a;b=c") == "tensor:a?b?c");
}

TEST_CASE("causes: an outlier channel, a large input channel, a Concat of unlike ranges") {
  std::unique_ptr<Model> model = parse_model(
      "model ir=10 opset=21\ninput x: float32[n,48]\ninitializer f: float32[48] = ones\ninitializer w: float32[48,64] = random(1)\n"
      "initializer v: float32[128,32] = random(2)\ninitializer k: float32[] = {100}\ng = Mul(x, f)\na = MatMul(g, w) \"one\"\nb = Mul(a, k)\n"
      "c = Concat(a, b) {axis=1}\ny = MatMul(c, v) \"two\"\noutput y: float32[n,32]\n");
  std::vector<double> large(48, 1);
  large[7] = 90;
  scale_constant(*model, "f", 0, large);
  std::vector<double> channels(64, 1);
  channels[5] = 50;
  scale_constant(*model, "w", 1, channels);
  const Pipeline pipeline = Pipeline::parse("quantize{granularity=tensor}");
  QuantizeRequest request = QuantizeRequest::from(pipeline.steps[0].options);
  ThreadPool pool(1);
  GivenData data(data_of(64), Tensor(), 32);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .calibration = &data};
  const std::vector<QuantizedUnit> units{{.selector = "name:one", .node = "one", .op = "MatMul", .tensors = {"w"}},
                                         {.selector = "name:two", .node = "two", .op = "MatMul", .tensors = {"v"}}};
  const Calibration calibration = calibrate(*model, context, diagnosis_request(*model, units));
  const auto names = [&](std::size_t unit, const std::vector<Json>& records = {}) {
    std::string text;
    for (const Cause& cause : diagnose(*model, units[unit], request, calibration, records)) text += cause.name + ": " + cause.detail + "\n";
    return text;
  };
  CHECK(names(0).find("weight outlier channel: channel 5 of 'w'") != std::string::npos);
  CHECK(names(0).find("activation outlier channel: channel 7 of 'g'") != std::string::npos);
  CHECK(names(1).find("mixed ranges in a Concat") != std::string::npos);
  CHECK(names(1).find("weight outlier") == std::string::npos);
  const std::vector<Json> records{{{"kind", "activation"}, {"tensor", "c"}, {"scale_min", 0.1}, {"clipped", 0.02}}};
  CHECK(names(1, records).find("clipping: 2.00 % of 'c'") != std::string::npos);
  request.granularity = Granularity::Kind::channel;
  CHECK(names(0).find("weight outlier channel") == std::string::npos);
}

}  // namespace
}  // namespace onnxpress
