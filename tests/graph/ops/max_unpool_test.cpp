#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("MaxUnpool puts back what MaxPool took") {
  const std::string pooled = R"(initializer x: float32[1,2,4,4] = random(5)
p, i = MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}
)";
  const Computed computed(pooled + "y = MaxUnpool(p, i) {kernel_shape=[2,2], strides=[2,2]}\n", 12);
  const Tensor& x = computed["x"];
  const Tensor& y = computed["y"];
  REQUIRE(to_string(y.dims()) == "[1,2,4,4]");
  for (std::size_t plane = 0; plane < 32; plane += 16)
    for (std::size_t window : {0, 2, 8, 10}) {
      float largest = -1e9f;
      float sum = 0;
      for (std::size_t cell : {0, 1, 4, 5}) {
        largest = std::max(largest, x.data<float>()[plane + window + cell]);
        sum += y.data<float>()[plane + window + cell];
      }
      CHECK(sum == largest);
    }
}

TEST_CASE("MaxUnpool into a larger output") {
  check_y(R"(initializer x: float32[1,1,2] = {7,8}
initializer i: int64[1,1,2] = {1,2}
initializer s: int64[3] = {1,1,6}
y = MaxUnpool(x, i, s) {kernel_shape=[2], strides=[2]}
)",
          "float32[1,1,6]{0,7,8,0,0,0}", 11);
  check_y(R"(initializer x: float16[1,1,2] = {7,8}
initializer i: int64[1,1,2] = {0,1}
y = MaxUnpool(x, i) {kernel_shape=[2], strides=[2], pads=[1,1]}
)",
          "float16[1,1,2]{7,8}", 9);
}

TEST_CASE("MaxUnpool refuses what makes no sense") {
  const auto refused = [](const std::string& rest) {
    CAPTURE(rest);
    CHECK_THROWS_AS(Computed("initializer x: float32[1,1,2] = {7,8}\n" + rest, 11), Error);
  };
  const std::string indices = "initializer i: int64[1,1,2] = {0,1}\n";
  refused(
      "initializer i: int64[1,1,2] = {0,4}\ny = MaxUnpool(x, i) {kernel_shape=[2], strides=[2]}\n");
  refused(
      "initializer i: int64[1,1,2] = {-1,0}\ny = MaxUnpool(x, i) {kernel_shape=[2], "
      "strides=[2]}\n");
  refused(
      "initializer i: int64[1,2] = {0,1}\ny = MaxUnpool(x, i) {kernel_shape=[2], strides=[2]}\n");
  refused(indices + "y = MaxUnpool(x, i)\n");
  refused(indices + "y = MaxUnpool(x, i) {kernel_shape=[2,2]}\n");
  refused(indices + "y = MaxUnpool(x, i) {kernel_shape=[1], pads=[2,2]}\n");
  refused(indices + "initializer s: int64[3] = {1,1,3}\n" +
          "y = MaxUnpool(x, i, s) {kernel_shape=[2], strides=[2]}\n");
  refused(indices + "initializer s: int64[2] = {1,4}\n" +
          "y = MaxUnpool(x, i, s) {kernel_shape=[2], strides=[2]}\n");
}

}  // namespace
}  // namespace onnxpress
