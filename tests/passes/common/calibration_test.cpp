#include "passes/common/calibration.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ir/parse.h"
#include "tests/passes/common/listed_data.h"

namespace onnxpress {
namespace {

constexpr std::string_view small_model = R"(
model ir=8 opset=17
input x: float32[batch,3]
initializer w: float32[3,2] = {1,2,3,4,5,6}
initializer one: float32[2] = ones
w2 = Mul(w, one)
h = MatMul(x, w2)
y = Relu(h)
shape = Shape(x)
output y: float32[batch,2]
output shape: int64[2]
)";

Calibration run(std::string_view text, Dataset& data, const CalibrationRequest& request = {}, int threads = 2) {
  const Options options;
  ThreadPool pool(threads);
  PassContext context{.options = options, .pool = pool, .calibration = &data};
  return calibrate(*parse_model(text), context, request);
}

std::vector<std::string> keys(const Calibration& calibration) {
  std::vector<std::string> names;
  for (const auto& [key, statistics] : calibration.values) names.push_back(key);
  return names;
}

TEST_CASE("statistics of inputs and computed values, not of constants and integers") {
  ListedData data({{Tensor::of<float>({2, 3}, {1, 0, -1, 0, 0, 2})}, {Tensor::of<float>({1, 3}, {-3, 0, 0})}});
  const Calibration found = run(small_model, data);
  CHECK(keys(found) == std::vector<std::string>{"h", "x", "y"});
  CHECK(found.samples == 3);
  CHECK(found.data == "listed data");
  CHECK(found.data_hash.empty());
  CHECK_FALSE(found.generated);
  // h: {-4,-4}, {10,12}, {-3,-6}
  const ValueStatistics& h = found.values.at("h");
  CHECK(h.count == 6);
  CHECK(h.min == -6);
  CHECK(h.max == 12);
  CHECK(h.histogram.total() == 6);
  const ValueStatistics& y = found.values.at("y");
  CHECK(y.zeros == 4);
  CHECK(y.min == 0);
  CHECK_FALSE(std::signbit(y.min));
  CHECK(found.values.at("x").zeros == 5);
}

TEST_CASE("the order of batches and the number of threads change no bit") {
  constexpr std::string_view model = R"(
model ir=8 opset=17
input x: float32[batch,c,n]
y = Exp(x)
output y: float32[batch,c,n]
)";
  std::vector<std::vector<Tensor>> batches;
  for (std::uint64_t i = 0; i < 5; ++i) batches.push_back({normal_tensor({3, 4, 9000}, i, std::exp2(double(i) - 2))});
  CalibrationRequest request{.channels = {{"x", 1}, {"y", 2}}};
  ListedData in_order(batches);
  Calibration expected = run(model, in_order, request, 1);
  CHECK(expected.values.at("y").histogram.total() == 5 * 3 * 4 * 9000);
  std::ranges::reverse(batches);
  ListedData reversed(batches);
  for (const int threads : {1, 3}) {
    Calibration found = run(model, reversed, request, threads);
    for (auto& [key, statistics] : found.values) {
      statistics.ema_min = expected.values.at(key).ema_min;
      statistics.ema_max = expected.values.at(key).ema_max;
    }
    CHECK(found.values == expected.values);
  }
}

TEST_CASE("the fast histogram is the one of adding values one by one") {
  ListedData data({{normal_tensor({2, 70000}, 1)}, {normal_tensor({1, 70000}, 2, 3)}});
  const Calibration found = run(R"(
model ir=8 opset=17
input x: float32[batch,n]
y = Relu(x)
output y: float32[batch,n]
)",
                                data);
  Histogram x, y;
  data.rewind();
  for (Batch batch; data.next(batch);)
    for (const float value : batch.inputs[0].data<float>()) {
      x.cover(value, value);
      x.add(value);
      y.cover(std::max(value, 0.0F), std::max(value, 0.0F));
      y.add(std::max(value, 0.0F));
    }
  CHECK(found.values.at("x").histogram == x);
  CHECK(found.values.at("y").histogram == y);
}

TEST_CASE("statistics by channel") {
  ListedData data({{Tensor::of<float>({1, 2, 2}, {1, 2, -3, 5})}, {Tensor::of<float>({1, 2, 2}, {4, 5, 1, 0})}});
  const Calibration found = run(R"(
model ir=8 opset=17
input x: float32[batch,2,2]
y = Neg(x)
output y: float32[batch,2,2]
)",
                                data, {.channels = {{"x", 1}, {"y", 2}}});
  const ValueStatistics& x = found.values.at("x");
  CHECK(x.channel_axis == 1);
  CHECK(x.channel_min == std::vector<float>{1, -3});
  CHECK(x.channel_max == std::vector<float>{5, 5});
  CHECK(x.channel_mean == std::vector<double>{3, 0.75});
  const ValueStatistics& y = found.values.at("y");
  CHECK(y.channel_min == std::vector<float>{-4, -5});
  CHECK(y.channel_max == std::vector<float>{3, 0});
}

TEST_CASE("values of subgraphs go by the outputs and attributes around them") {
  constexpr std::string_view text = R"(
model ir=8 opset=17
input x: float32[n]
input c: bool[]
initializer trips: int64[] = {3}
initializer go: bool[] = {1}
z = If(c) {else_branch=graph {
  t = Neg(x)
  output t
}, then_branch=graph {
  t = Exp(x)
  output t
}}
y = Loop(trips, go, z) {body=graph {
  input i: int64[]
  input more: bool[]
  input v: float32[n]
  next = Identity(more)
  w = Add(v, x)
  output next
  output w
}}
output y: float32[n]
)";
  ListedData data({{Tensor::of<float>({2}, {1, 2}), Tensor::scalar(false)}});
  const Calibration found = run(text, data);
  CHECK(keys(found) == std::vector<std::string>{"x", "y", "y > body > v", "y > body > w", "z", "z > else_branch > t"});
  CHECK(found.values.at("y > body > w").max == 4);
  CHECK(found.values.at("y > body > w").count == 6);
  CHECK(found.values.at("z > else_branch > t").min == -2);
  const auto model = parse_model(text);
  std::size_t found_values = 0;
  model->graph.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes())
      for (const Value* value : node->outputs()) found_values += found.find(*value) != nullptr;
  });
  CHECK(found_values == 4);
}

TEST_CASE("a branch that was not taken is told") {
  ListedData data({{Tensor::of<float>({2}, {1, 2}), Tensor::scalar(true)}});
  const Calibration found = run(R"(
model ir=8 opset=17
input x: float32[n]
input c: bool[]
z = If(c) {else_branch=graph {
  t: float32[n] = Neg(x)
  output t
}, then_branch=graph {
  t: float32[n] = Exp(x)
  output t
}}
output z: float32[n]
)",
                                data);
  CHECK(found.unseen == std::set<std::string, std::less<>>{"z > else_branch > t"});
  const std::vector<std::string> warnings = calibration_warnings(found);
  REQUIRE(warnings.size() == 2);
  CHECK(warnings[0].starts_with("FEW CALIBRATION SAMPLES: 2 of listed data"));
  CHECK(warnings[1] ==
        "1 value was never computed on the calibration data (a branch not taken, or nothing depends on it): "
        "'z > else_branch > t'");
}

TEST_CASE("functions are inlined") {
  ListedData data({{Tensor::of<float>({2}, {1, -2})}});
  const Calibration found = run(R"(
model ir=8 opset=17 local=1
input x: float32[n]
y = local.Twice(x) "call"
output y: float32[n]
function local.Twice() opset=17 {
  input v
  r = Add(v, v)
  s = Neg(r)
  output s
}
)",
                                data);
  CHECK(keys(found) == std::vector<std::string>{"call/r", "x", "y"});
}

TEST_CASE("half precision and double are observed as float32") {
  ListedData data({{Tensor::of<float>({3}, {1, -2, 0.5F})}});
  const Calibration found = run(R"(
model ir=8 opset=17
input x: float32[n]
h = Cast(x) {to=10}
d = Cast(h) {to=11}
y = Cast(d) {to=1}
output y: float32[n]
)",
                                data);
  for (const char* key : {"h", "d"}) {
    CHECK(found.values.at(key).min == -2);
    CHECK(found.values.at(key).histogram == found.values.at("x").histogram);
  }
}

TEST_CASE("NaN and infinities are counted, not folded in") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  ListedData data({{Tensor::of<float>({1, 3}, {nan, 1, inf})}, {Tensor::of<float>({1, 3}, {nan, -inf, nan})}});
  const Calibration found = run(R"(
model ir=8 opset=17
input x: float32[batch,3]
y = Identity(x)
output y: float32[batch,3]
)",
                                data);
  const ValueStatistics& x = found.values.at("x");
  CHECK(x.nonfinite == 5);
  CHECK(x.count == 1);
  CHECK(x.min == 1);
  CHECK(x.max == 1);
  CHECK(calibration_warnings(found)[1] ==
        "2 values held NaN or infinity on the calibration data, which their ranges leave out: 'x', 'y'");
}

TEST_CASE("large batches run in pieces with the same result") {
  constexpr std::string_view model = R"(
model ir=8 opset=17
input x: float32[batch,1,400,400]
h = Exp(x)
y = GlobalAveragePool(h)
output y: float32[batch,1,1,1]
)";
  const Tensor all = normal_tensor({100, 1, 400, 400}, 3);
  ListedData whole({{all}});
  std::vector<std::vector<Tensor>> single;
  const auto floats = all.data<float>();
  for (std::size_t i = 0; i < 100; ++i)
    single.push_back({Tensor::of<float>({1, 1, 400, 400}, floats.subspan(i * 160000, 160000))});
  ListedData by_one(single);
  const Calibration a = run(model, whole), b = run(model, by_one);
  CHECK(a.samples == 100);
  CHECK(a.values.at("h").histogram == b.values.at("h").histogram);
  CHECK(a.values.at("h").min == b.values.at("h").min);
}

TEST_CASE("what cannot be calibrated is an error") {
  ListedData empty({});
  CHECK_THROWS_WITH_AS(run(small_model, empty), "the calibration data listed data holds no samples", Error);
  ListedData other({{Tensor::of<float>({1, 4}, {1, 2, 3, 4})}});
  CHECK_THROWS_WITH_AS(run(small_model, other),
                       "calibrating with listed data, samples 0 to 0: input 'x': expected float32[batch,3], found "
                       "float32[1,4]",
                       Error);
  ListedData data({{Tensor::of<float>({1, 3}, {1, 2, 3})}});
  CHECK_THROWS_WITH_AS(run(small_model, data, {.values = {"q"}}), "calibration: the model has no value 'q'", Error);
  const Options options;
  ThreadPool pool(1);
  PassContext context{.options = options, .pool = pool};
  CHECK_THROWS_WITH_AS(calibrate(*parse_model(small_model), context, {}),
                       "expected calibration data (--calib), found none", Error);
}

TEST_CASE("generated inputs stand in for data when asked for") {
  const Options options;
  ThreadPool pool(1);
  PassContext context{.options = options, .pool = pool};
  const Calibration found = calibrate(*parse_model(small_model), context, {.generated_sets = 3});
  CHECK(found.generated);
  CHECK(found.samples == 3);
  CHECK(found.values.at("x").count == 3 * 2 * 3);
  CHECK(calibration_warnings(found)[0].starts_with("CALIBRATED ON GENERATED DATA"));
}

}  // namespace
}  // namespace onnxpress
