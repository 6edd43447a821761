#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "graph/base/random.h"
#include "passes/quantize/assumed_moments.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// Mean and variance of clamp(x, low, high) over drawn samples.
Normal drawn(const Normal& x, double low, double high) {
  Random random(3);
  double sum = 0, squares = 0;
  constexpr int count = 400000;
  for (int i = 0; i < count; ++i) {
    const double y = std::clamp(x.mean + std::sqrt(x.variance) * random.normal(), low, high);
    sum += y;
    squares += y * y;
  }
  const double mean = sum / count;
  return {mean, squares / count - mean * mean};
}

TEST_CASE("clipped normal distributions have the moments of samples") {
  const Normal cases[] = {{0, 1}, {0.7, 2}, {-1.5, 0.3}, {4, 1}, {-6, 1}};
  const std::pair<double, double> bounds[] = {{0, infinity}, {0, 6}, {-infinity, 0.5}, {-1, 1}, {-infinity, infinity}};
  for (const Normal& x : cases)
    for (const auto& [low, high] : bounds) {
      CAPTURE(x.mean);
      CAPTURE(low);
      CAPTURE(high);
      const Normal found = clipped_normal(x, low, high), expected = drawn(x, low, high);
      CHECK(found.mean == doctest::Approx(expected.mean).epsilon(0.01).scale(1));
      CHECK(found.variance == doctest::Approx(expected.variance).epsilon(0.02).scale(1));
    }
}

TEST_CASE("a normalization's scale and bias give the moments behind it, whatever comes before") {
  const auto model = parse_model(
      "model ir=8 opset=17\ninput x: float32[1,2,4,4]\ninitializer g: float32[2] = {3,-2}\ninitializer o: float32[2] = {5,1}\n"
      "initializer m: float32[2] = {0,0}\ninitializer s: float32[2] = {1,1}\ninitializer w: float32[1,2,1,1] = {1,2}\ninitializer k: float32[1] = {0.5}\n"
      "e = Sin(x)\na = BatchNormalization(e, g, o, m, s)\nc = Clip(a)\np = AveragePool(c) {kernel_shape=[2,2]}\ny = Conv(p, w, k)\nz = Sin(y)\noutput z\n");
  const AssumedMoments moments(*model);
  CHECK(moments.find(*model->graph.find("e")) == nullptr);
  const NormalChannels* normalized = moments.find(*model->graph.find("a"));
  REQUIRE(normalized != nullptr);
  CHECK(normalized->from_statistics);
  CHECK(normalized->mean == std::vector<double>{5, 1});
  CHECK(normalized->variance == std::vector<double>{9, 4});
  const NormalChannels* y = moments.find(*model->graph.find("y"));
  REQUIRE(y != nullptr);
  CHECK(y->mean[0] == doctest::Approx(5 + 2 + 0.5));
  CHECK(y->variance[0] == doctest::Approx(9 + 4 * 4));
  CHECK(moments.find(*model->graph.find("z")) == nullptr);
}

TEST_CASE("inputs are standard normal; sums, scales and movements carry moments on") {
  const auto model = parse_model(
      "model ir=8 opset=17\ninput x: float32[4,3]\ninitializer w: float32[3,2] = {1,0,2,0,2,1}\ninitializer k: float32[2] = {1,2}\n"
      "initializer f: float32[] = {3}\na = Gemm(x, w, k)\nb = Add(a, a)\nc = Mul(b, f)\nd = Concat(c, a) {axis=1}\ne = Transpose(d) {perm=[1,0]}\noutput e\n");
  const AssumedMoments moments(*model);
  const NormalChannels* a = moments.find(*model->graph.find("a"));
  REQUIRE(a != nullptr);
  CHECK_FALSE(a->from_statistics);
  CHECK(a->mean == std::vector<double>{1, 2});
  CHECK(a->variance == std::vector<double>{9, 1});
  const NormalChannels* e = moments.find(*model->graph.find("e"));
  REQUIRE(e != nullptr);
  CHECK(e->axis == 0);
  CHECK(e->mean == std::vector<double>{6, 12, 1, 2});
  CHECK(e->variance == std::vector<double>{2 * 9 * 9, 2 * 9, 9, 1});
}

}  // namespace
}  // namespace onnxpress
