#include "graph/exec/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/ir/parse.h"
#include "tests/graph/exec/given_data.h"

namespace onnxpress {
namespace {

using doctest::Approx;

// The data are the scores themselves.
std::unique_ptr<Model> identity(const std::string& dims) {
  return parse_model(
      fmt::format("model ir=8 opset=17\ninput x: float32[{0}]\n"
                  "y: float32[{0}] = Identity(x)\noutput y: float32[{0}]\n",
                  dims));
}

Tensor floats(Dims dims, std::vector<float> values) {
  return Tensor::of<float>(std::move(dims), values);
}

Tensor ints(Dims dims, std::vector<std::int64_t> values) {
  return Tensor::of<std::int64_t>(std::move(dims), values);
}

double value(const Evaluation& evaluation, Metric metric) {
  const MetricValue* found = evaluation.find(metric);
  REQUIRE(found != nullptr);
  return found->value;
}

std::string error_of(const Model& model, Dataset& data, const EvaluationOptions& options = {}) {
  try {
    evaluate(model, data, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("metric names") {
  for (const Metric metric : {Metric::top1, Metric::top5, Metric::precision, Metric::recall,
                              Metric::f1, Metric::cross_entropy, Metric::mse})
    CHECK(metric_from_name(name(metric)) == metric);
  CHECK(metric_from_name("accuracy") == Metric::top1);
  CHECK_FALSE(metric_from_name("accurate").has_value());
  CHECK(higher_is_better(Metric::f1));
  CHECK_FALSE(higher_is_better(Metric::mse));
}

TEST_CASE("Wilson's interval") {
  // Newcombe 1998, Statistics in Medicine 17, table I, method 3.
  const auto [low, high] = wilson_interval(81, 263);
  CHECK(low == Approx(0.2553).epsilon(0.0003));
  CHECK(high == Approx(0.3662).epsilon(0.0003));
  const auto [zero_low, zero_high] = wilson_interval(0, 20);
  CHECK(zero_low == 0);
  CHECK(zero_high == Approx(0.1611).epsilon(0.0005));
}

TEST_CASE("classification figures by hand") {
  // Predictions 0 0 1 2 for labels 0 1 1 2.
  GivenData data(floats({4, 3}, {2, 1, 0, 3, 1, 1, 0, 2, 1, 0, 0, 5}), ints({4}, {0, 1, 1, 2}), 3);
  const auto model = identity("n,3");
  const Evaluation found = evaluate(*model, data);
  CHECK(found.samples == 4);
  CHECK(found.correct == 3);
  CHECK(found.output == "y");
  CHECK(value(found, Metric::top1) == Approx(0.75));
  CHECK(value(found, Metric::top5) == 1);
  CHECK(value(found, Metric::precision) == Approx((0.5 + 1 + 1) / 3));
  CHECK(value(found, Metric::recall) == Approx((1 + 0.5 + 1) / 3));
  CHECK(value(found, Metric::f1) == Approx((2.0 / 3 + 2.0 / 3 + 1) / 3));
  const auto loss = [](double own, double a, double b) {
    return std::log(std::exp(own) + std::exp(a) + std::exp(b)) - own;
  };
  CHECK(value(found, Metric::cross_entropy) ==
        Approx((loss(2, 1, 0) + loss(1, 3, 1) + loss(2, 0, 1) + loss(5, 0, 0)) / 4));
  CHECK(found.find(Metric::mse) == nullptr);
  CHECK(found.find(Metric::top1)->low == Approx(wilson_interval(3, 4).first));
  CHECK(found.notes.empty());
}

TEST_CASE("cross-entropy of distributions is of their logarithm") {
  GivenData data(floats({2, 2}, {0.25f, 0.75f, 0.5f, 0.5f}), ints({2}, {0, 1}), 2);
  const auto model = identity("n,2");
  CHECK(value(evaluate(*model, data), Metric::cross_entropy) ==
        Approx(-(std::log(0.25) + std::log(0.5)) / 2));
  GivenData sure(floats({1, 2}, {1, 0}), ints({1}, {1}), 1);
  CHECK(value(evaluate(*model, sure), Metric::cross_entropy) == Approx(23 * std::log(2.0)));
}

TEST_CASE("one score is a logit of class 1, or a Sigmoid's probability") {
  const Tensor scores = floats({4, 1}, {-2, 0.25f, 3, -1});
  GivenData logits(scores, ints({4}, {0, 1, 1, 1}), 3);
  const Evaluation found = evaluate(*identity("n,1"), logits);
  CHECK(found.correct == 3);
  const auto loss = [](double score, int label) { return std::log1p(std::exp(label == 1 ? -score : score)); };
  CHECK(value(found, Metric::cross_entropy) == Approx((loss(-2, 0) + loss(0.25, 1) + loss(3, 1) + loss(-1, 1)) / 4));
  const auto sigmoid = parse_model(
      "model ir=8 opset=17\ninput x: float32[n,1]\np = Sigmoid(x)\ninitializer r: int64[2] = {-1,1}\n"
      "y: float32[n,1] = Reshape(p, r)\noutput y: float32[n,1]\n");
  for (const Tensor& labels : {ints({4}, {0, 1, 1, 1}), ints({4, 1}, {0, 1, 1, 1}), floats({4}, {0, 1, 1, 1})}) {
    GivenData data(scores, labels, 3);
    const Evaluation same = evaluate(*sigmoid, data);
    CHECK(same.correct == 3);
    CHECK(value(same, Metric::cross_entropy) == Approx(value(found, Metric::cross_entropy)));
  }
  // By position: a map of one channel.
  GivenData map(floats({1, 1, 2, 2}, {1, -1, 2, -2}), ints({1, 2, 2}, {1, 0, 0, 0}), 1);
  CHECK(evaluate(*identity("n,1,2,2"), map).correct == 3);
  GivenData beyond(scores, ints({4}, {0, 1, 2, 1}), 3);
  CHECK(error_of(*identity("n,1"), beyond).find("label 2 of sample 2") != std::string::npos);
}

TEST_CASE("what is not labelled is not judged") {
  GivenData data(floats({4, 2}, {2, 1, 0, 3, 1, 0, 0, 2}), ints({4}, {0, -100, 1, -100}), 3);
  const Evaluation found = evaluate(*identity("n,2"), data);
  CHECK(found.positions == 2);
  CHECK(found.correct == 1);
}

TEST_CASE("equal scores rank by class number; top-5") {
  GivenData data(floats({2, 7}, {1, 1, 1, 1, 1, 1, 1, 7, 6, 5, 4, 3, 2, 1}), ints({2}, {4, 5}), 1);
  const Evaluation found =
      evaluate(*identity("n,7"), data, {.metrics = {Metric::top5, Metric::top1}});
  CHECK(found.values[0].metric == Metric::top5);
  CHECK(found.values[0].value == Approx(0.5));
  CHECK(found.values[1].value == 0);
}

TEST_CASE("several positions a sample, classes in the middle or last") {
  // [1,2,3]: two classes, three positions.
  GivenData middle(floats({1, 2, 3}, {1, 0, 1, 0, 1, 0}), ints({1, 3}, {0, 1, 1}), 1);
  const Evaluation found = evaluate(*identity("n,2,3"), middle);
  CHECK(found.samples == 1);
  CHECK(found.positions == 3);
  CHECK(found.correct == 2);
  GivenData last(floats({1, 3, 2}, {1, 0, 0, 1, 1, 0}), ints({1, 3}, {0, 1, 1}), 1);
  CHECK(evaluate(*identity("n,3,2"), last).correct == 2);
  GivenData pooled(floats({2, 2, 1, 1}, {1, 0, 0, 1}), ints({2, 1}, {0, 1}), 1);
  CHECK(evaluate(*identity("n,2,1,1"), pooled).correct == 2);
}

TEST_CASE("squared error of float labels") {
  GivenData data(floats({3, 2}, {1, 2, 3, 4, 5, 6}), floats({3, 2}, {1, 2, 3, 4, 5, 9}), 2);
  const Evaluation found = evaluate(*identity("n,2"), data);
  REQUIRE(found.values.size() == 1);
  CHECK(value(found, Metric::mse) == Approx(1.5));
}

TEST_CASE("whole floating-point labels are classes where they fit nothing else") {
  const auto evaluated = [](const Tensor& labels) {
    GivenData data(floats({3, 2}, {1, 0, 0, 1, 1, 0}), labels, 2);
    return evaluate(*identity("n,2"), data);
  };
  const Evaluation found = evaluated(floats({3}, {0, 1, 1}));
  CHECK(found.correct == 2);
  CHECK(value(found, Metric::top1) == Approx(2.0 / 3));
  // Labels of the output's own shape are targets.
  CHECK(evaluated(floats({3, 2}, {0, 1, 1, 0, 1, 1})).find(Metric::mse) != nullptr);
  CHECK_THROWS_AS(evaluated(floats({3}, {0, 1, 0.5f})), Error);
}

TEST_CASE("elements of the judged output that are no numbers are counted") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  GivenData data(floats({3, 2}, {nan, 0, 2, inf, 1, 1}), ints({3}, {0, 0, 0}), 2);
  const NonFinite found = evaluate(*identity("n,2"), data).non_finite;
  CHECK(found.elements == 6);
  CHECK(found.nan == 1);
  CHECK(found.infinite == 1);
  CHECK(to_string("y", found) == "output 'y': 1 of 6 elements are NaN, 1 infinite");
}

TEST_CASE("NaN is wrong and told") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  GivenData data(floats({2, 2}, {nan, 0, 2, 0}), ints({2}, {0, 0}), 2);
  const Evaluation found = evaluate(*identity("n,2"), data);
  CHECK(value(found, Metric::top1) == Approx(0.5));
  CHECK(value(found, Metric::cross_entropy) == Approx(std::log(1 + std::exp(-2.0))));
  REQUIRE(found.notes.size() == 1);
  CHECK(found.notes[0] == "1 positions have NaN scores: counted as wrong");
}

TEST_CASE("padding of the last batch does not count") {
  const auto model = identity("2,2");
  GivenData data(floats({3, 2}, {1, 0, 1, 0, 0, 1}), ints({3}, {0, 0, 1}), 2, true);
  const Evaluation found = evaluate(*model, data);
  CHECK(found.samples == 3);
  CHECK(found.correct == 3);
}

TEST_CASE("figures do not depend on threads") {
  Random random(1);
  std::vector<float> scores(101 * 5);
  for (float& score : scores) score = static_cast<float>(random.normal());
  std::vector<std::int64_t> labels(101);
  for (std::int64_t& label : labels) label = static_cast<std::int64_t>(random.below(5));
  GivenData data(floats({101, 5}, scores), ints({101}, labels), 7);
  const auto model = identity("n,5");
  const Evaluation one = evaluate(*model, data, {.threads = 1});
  const Evaluation three = evaluate(*model, data, {.threads = 3});
  REQUIRE(one.values.size() == three.values.size());
  for (std::size_t i = 0; i < one.values.size(); ++i)
    CHECK(one.values[i].value == three.values[i].value);
}

TEST_CASE("evaluation says what does not fit") {
  const auto model = identity("n,3");
  GivenData wrong_label(floats({2, 3}, {0, 1, 2, 0, 1, 2}), ints({2}, {1, 3}), 1);
  CHECK(error_of(*model, wrong_label) ==
        "label 3 of sample 1: expected 0 to 2, the output has 3 classes");
  GivenData unlabelled(floats({1, 3}, {0, 1, 2}), Tensor(), 1);
  CHECK(error_of(*model, unlabelled) == "given data has no labels");
  GivenData good(floats({1, 3}, {0, 1, 2}), ints({1}, {1}), 1);
  CHECK(error_of(*model, good, {.output = "z"}) == "the model has no output 'z'");
  GivenData shape(floats({1, 3}, {0, 1, 2}), ints({1, 2}, {1, 1}), 1);
  CHECK(error_of(*model, shape) ==
        "output 'y' has shape [1,3], which does not fit labels of shape [1,2]");
  GivenData squares(floats({1, 3}, {0, 1, 2}), floats({1, 3}, {0, 1, 0.5f}), 1);
  CHECK(error_of(*model, squares, {.metrics = {Metric::top1}}) ==
        "top1 needs labels that are class numbers, found float32 that are not whole numbers");
}

TEST_CASE("differences between two models by hand") {
  const auto reference = identity("n,2");
  const auto other = parse_model(
      "model ir=8 opset=17\ninput a: float32[n,2]\ninitializer d: float32[2] = {0,1}\n"
      "b: float32[n,2] = Add(a, d)\noutput b: float32[n,2]\n");
  GivenData data(floats({3, 2}, {4, 1, 2, 1.5f, -1, 3}), Tensor(), 2);
  const std::vector<OutputError> found = compare_outputs(*reference, *other, data, 2);
  REQUIRE(found.size() == 1);
  CHECK(found[0].output == "y");
  CHECK(found[0].samples == 3);
  CHECK(found[0].max_abs == 1);
  CHECK(found[0].range == 5);
  CHECK(found[0].snr_db == Approx(10 * std::log10((16 + 1 + 4 + 2.25 + 1 + 9) / 3)));
  CHECK(*found[0].top1_agreement == Approx(2.0 / 3));

  const OutputError same = compare_outputs(*reference, *reference, {{floats({1, 2}, {1, 2})}})[0];
  CHECK(std::isinf(same.snr_db));
  CHECK(same.snr_db > 0);
  CHECK(same.max_abs == 0);
}

TEST_CASE("NaN and infinity on both sides are no difference, but tell nothing either") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const auto model = identity("n,2");
  const OutputError all =
      compare_outputs(*model, *model, {{floats({2, 2}, {nan, nan, inf, nan})}})[0];
  CHECK(all.max_abs == 0);
  CHECK(all.before.all());
  CHECK(all.top1_agreement == 0.0);
  CHECK(is_unjudgeable({all}));
  const OutputError some = compare_outputs(*model, *model, {{floats({2, 2}, {nan, 1, inf, 2})}})[0];
  CHECK(some.range == 1);
  CHECK(some.snr_db > 0);
  CHECK(some.top1_agreement == 0.5);
  CHECK_FALSE(is_unjudgeable({some}));
  CHECK_FALSE(is_unjudgeable({all, some}));
}

TEST_CASE("NaN on one side only") {
  const auto reference = parse_model(
      "model ir=8 opset=17\ninput x: float32[n]\n"
      "y: float32[n] = Sqrt(x)\noutput y: float32[n]\n");
  const auto other = parse_model(
      "model ir=8 opset=17\ninput x: float32[n]\n"
      "y: float32[n] = Abs(x)\noutput y: float32[n]\n");
  const std::vector<std::vector<Tensor>> inputs{{floats({2}, {1, -1})}};
  const OutputError found = compare_outputs(*reference, *other, inputs)[0];
  CHECK(std::isinf(found.max_abs));
  CHECK(found.snr_db < 0);
  CHECK(compare_outputs(*reference, *reference, inputs)[0].max_abs == 0);
  CHECK_FALSE(found.top1_agreement.has_value());
}

}  // namespace
}  // namespace onnxpress
