#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("MeanVarianceNormalization") {
  // 1, 3: mean 2, deviation 1.
  check_y(
      "initializer x: float32[2,2] = {1,3,10,14}\ny = MeanVarianceNormalization(x) {axes=[1]}\n",
      "float32[2,2]{-1,1,-1,1}", 13);
  check_y(
      "initializer x: float32[2,2] = {1,10,3,14}\ny = MeanVarianceNormalization(x) {axes=[0]}\n",
      "float32[2,2]{-1,-1,1,1}", 13);
  // Over batch, height and width by default: one mean a channel.
  check_y("initializer x: float32[2,2,1,1] = {1,10,3,14}\ny = MeanVarianceNormalization(x)\n",
          "float32[2,2,1,1]{-1,-1,1,1}", 9);
  check_y("initializer x: float64[3] = {5,5,5}\ny = MeanVarianceNormalization(x) {axes=[-1]}\n",
          "float64[3]{0,0,0}", 13);
  check_y("initializer x: float16[2] = {1,3}\ny = MeanVarianceNormalization(x) {axes=[0]}\n",
          "float16[2]{-1,1}", 13);
  CHECK_THROWS_AS(Computed("initializer x: float32[2,2] = random(1)\n"
                           "y = MeanVarianceNormalization(x)\n",
                           13),
                  Error);
  CHECK_THROWS_AS(Computed("initializer x: float32[2,2] = random(1)\n"
                           "y = MeanVarianceNormalization(x) {axes=[1,-1]}\n",
                           13),
                  Error);
}

TEST_CASE("MeanVarianceNormalization leaves mean 0 and variance 1") {
  const Computed computed(R"(initializer x: float32[3,4,5,6] = random(1)
y = MeanVarianceNormalization(x) {axes=[0,2]}
initializer a: int64[2] = {0,2}
m = ReduceMean(y, a)
q = Mul(y, y)
v = ReduceMean(q, a)
)",
                          18);
  for (const float mean : computed["m"].data<float>()) CHECK(std::abs(mean) < 1e-6f);
  for (const float variance : computed["v"].data<float>()) CHECK(std::abs(variance - 1) < 1e-5f);
}

}  // namespace
}  // namespace onnxpress
