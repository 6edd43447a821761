// Pooling: exponents, windows in the corners, sizes that make no sense.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("LpPool of every version") {
  const std::string x = "initializer x: float32[1,1,4] = {3,-4,0,2}\n";
  check_y(x + "y = LpPool(x) {kernel_shape=[2]}\n", "float32[1,1,3]{5,4,2}", 11);
  check_y(x + "y = LpPool(x) {kernel_shape=[2], p=1}\n", "float32[1,1,3]{7,4,2}", 2);
  check_y(x + "y = LpPool(x) {kernel_shape=[2], p=3, strides=[2]}\n", "float32[1,1,2]{4.4979414,2}",
          11);
  check_y(x + "y = LpPool(x) {kernel_shape=[2], p=1.0}\n", "float32[1,1,3]{7,4,2}", 1);
  check_y(x + "y = LpPool(x) {kernel_shape=[2]}\n", "float32[1,1,3]{5,4,2}", 1);
  check_y(x + "y = LpPool(x) {dilations=[2], kernel_shape=[2], p=1}\n", "float32[1,1,2]{3,6}", 18);
  check_y(x + "y = LpPool(x) {ceil_mode=1, kernel_shape=[3], p=1, strides=[2]}\n",
          "float32[1,1,2]{7,2}", 18);
  check_y(x + "y = GlobalLpPool(x)\n", "float32[1,1,1]{5.3851648}", 2);
  check_y(x + "y = GlobalLpPool(x) {p=1.0}\n", "float32[1,1,1]{9}", 1);
  check_y(x + "y = GlobalLpPool(x) {p=1}\n", "float32[1,1,1]{9}", 22);
  CHECK_THROWS_AS(Computed(x + "y = LpPool(x) {kernel_shape=[2], p=0}\n", 11), Error);
  CHECK_THROWS_AS(Computed(x + "y = GlobalLpPool(x) {p=-1}\n", 11), Error);
}

TEST_CASE("MaxPool of bytes and indices down the columns") {
  check_y("initializer x: uint8[1,1,4] = {1,200,3,255}\ny = MaxPool(x) {kernel_shape=[2]}\n",
          "uint8[1,1,3]{200,200,255}", 12);
  check_y(R"(initializer x: float32[1,2,2,3] = {1,2,3,4,9,6,1,2,3,4,5,6}
v, y = MaxPool(x) {kernel_shape=[2,3], storage_order=1}
)",
          "int64[1,2,1,1]{3,11}", 12);
}

TEST_CASE("windows and transposed convolutions refuse sizes that overflow") {
  const auto refused = [](const std::string& body) {
    CAPTURE(body);
    CHECK_THROWS_AS(Computed(body, 17), Error);
  };
  refused(
      "initializer x: float32[0,1,9223372036854775807] = {}\n"
      "y = MaxPool(x) {kernel_shape=[2], pads=[1,1]}\n");
  refused(
      "initializer x: float32[0,1,9223372036854775807] = {}\n"
      "y = AveragePool(x) {auto_pad=\"SAME_UPPER\", kernel_shape=[2], strides=[2]}\n");
  const std::string w = "initializer w: float32[1,1,2] = ones\n";
  refused("initializer x: float32[0,1,4611686018427387904] = {}\n" + w +
          "y = ConvTranspose(x, w) {strides=[4]}\n");
  const std::string x = "initializer x: float32[1,1,2] = ones\n" + w;
  refused(x + "y = ConvTranspose(x, w) {output_padding=[9223372036854775807]}\n");
  refused(x + "y = ConvTranspose(x, w) {output_padding=[-1]}\n");
  refused(x + "y = ConvTranspose(x, w) {output_shape=[-9223372036854775807]}\n");
}

}  // namespace
}  // namespace onnxpress
