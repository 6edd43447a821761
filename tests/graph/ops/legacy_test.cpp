// Operators in the forms of opsets 1 to 6.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

const std::string pair = R"(initializer a: float32[2,3] = {1,2,3,4,5,6}
initializer b: float32[2] = {10,20}
initializer c: float32[3] = {10,20,30}
)";

TEST_CASE("broadcast and axis of arithmetic before opset 7") {
  check_y(pair + "y = Add(a, b) {axis=0, broadcast=1, consumed_inputs=[0,0]}\n",
          "float32[2,3]{11,12,13,24,25,26}", 1);
  check_y(pair + "y = Sub(a, c) {broadcast=1}\n", "float32[2,3]{-9,-18,-27,-6,-15,-24}", 6);
  check_y(pair + "y = Mul(a, c) {axis=1, broadcast=1}\n", "float32[2,3]{10,40,90,40,100,180}", 6);
  check_y(pair + "y = Div(a, b) {axis=-2, broadcast=1}\n", "float32[2,3]{0.1,0.2,0.3,0.2,0.25,0.3}",
          6);
  check_y(pair + "initializer p: float32[2] = {1,2}\ny = Pow(a, p) {axis=0, broadcast=1}\n",
          "float32[2,3]{1,2,3,16,25,36}", 1);
  CHECK_THROWS_AS(Computed(pair + "y = Add(a, b) {axis=1, broadcast=1}\n", 6), Error);
  CHECK_THROWS_AS(Computed(pair + "y = Add(a, b) {axis=2, broadcast=1}\n", 6), Error);
}

TEST_CASE("broadcast and axis of comparisons and logic before opset 7") {
  check_y(pair + "initializer d: float32[2] = {2,5}\ny = Greater(a, d) {axis=0, broadcast=1}\n",
          "bool[2,3]{0,0,1,0,0,1}", 1);
  check_y(pair + "initializer d: float32[2] = {2,5}\ny = Less(a, d) {axis=0, broadcast=1}\n",
          "bool[2,3]{1,0,0,1,0,0}", 1);
  const std::string flags =
      "initializer a: bool[2,2] = {1,1,0,0}\ninitializer b: bool[2] = {1,0}\n";
  check_y(flags + "y = And(a, b) {axis=0, broadcast=1}\n", "bool[2,2]{1,1,0,0}", 1);
  check_y(flags + "y = Or(a, b) {broadcast=1}\n", "bool[2,2]{1,1,1,0}", 1);
  check_y(flags + "y = Xor(a, b) {axis=0, broadcast=1}\n", "bool[2,2]{0,0,0,0}", 1);
  check_y(
      "initializer a: int32[2,2] = {1,2,3,4}\ninitializer b: int32[2] = {1,4}\ny = Equal(a, b) "
      "{axis=0, broadcast=1}\n",
      "bool[2,2]{1,0,0,1}", 1);
}

TEST_CASE("BatchNormalization, InstanceNormalization and Dropout of opset 1") {
  const std::string x = R"(initializer x: float32[1,2,2] = {1,3,2,6}
initializer s: float32[2] = {2,1}
initializer b: float32[2] = {0,10}
initializer m: float32[2] = {1,2}
initializer v: float32[2] = {4,16}
)";
  check_y(x + "y = BatchNormalization(x, s, b, m, v) {consumed_inputs=[0,0,0,1,1], epsilon=0.0, "
              "is_test=1}\n",
          "float32[1,2,2]{0,2,10,11}", 1);
  check_y(x + "y = BatchNormalization(x, s, b, m, v) {epsilon=0.0, is_test=1}\n",
          "float32[1,2,2]{0,2,10,11}", 6);
  // Statistics of every cell.
  check_y(R"(initializer x: float32[2,2] = {1,3,2,6}
initializer s: float32[2] = {2,1}
initializer b: float32[2] = {0,10}
initializer m: float32[2] = {1,2}
initializer v: float32[2] = {4,16}
y = BatchNormalization(x, s, b, m, v) {epsilon=0.0, is_test=1, spatial=0}
)",
          "float32[2,2]{0,10.25,1,11}", 6);
  check_y(x + "y = InstanceNormalization(x, s, b) {consumed_inputs=[0,0,0], epsilon=0.0}\n",
          "float32[1,2,2]{-2,2,9,11}", 1);
  check_y(x + "y = Dropout(x) {consumed_inputs=[0], is_test=1, ratio=0.5}\n",
          "float32[1,2,2]{1,3,2,6}", 1);
}

TEST_CASE("shapes, pads and parts as attributes") {
  const std::string x = "initializer x: float32[2,3] = {1,2,3,4,5,6}\n";
  check_y(x + "y = Pad(x) {paddings=[0,1,1,0], value=7.0}\n",
          "float32[3,4]{7,1,2,3,7,4,5,6,7,7,7,7}", 1);
  check_y(x + "y = Reshape(x) {consumed_inputs=[0], shape=[0,-1,1]}\n",
          "float32[2,3,1]{1,2,3,4,5,6}", 1);
  check_y(x + "y = Concat(x, x)\n", "float32[2,6]{1,2,3,1,2,3,4,5,6,4,5,6}", 3);
  check_y(x + "y = Slice(x) {axes=[1], ends=[-1], starts=[0]}\n", "float32[2,2]{1,2,4,5}", 1);
  check_y("initializer x: int64[1,2,1] = {1,2}\ny = Squeeze(x) {axes=[0]}\n", "int64[2,1]{1,2}", 1);
  check_y("initializer x: int64[2] = {1,2}\ny = Unsqueeze(x) {axes=[1]}\n", "int64[2,1]{1,2}", 1);
  check_y(x + "y = Cast(x) {to=\"INT32\"}\n", "int32[2,3]{1,2,3,4,5,6}", 1);
  CHECK_THROWS_AS(Computed(x + "y = Cast(x) {to=\"INT33\"}\n", 1), Error);
  CHECK_THROWS_AS(Computed(x + "y = Reshape(x)\n", 1), Error);

  const Computed given(x + "initializer s: float32[2] = {1,2}\ny, z = Split(x, s) {axis=1}\n", 1);
  check_close(given["z"], parse_tensor("float32[2,2]{2,3,5,6}"));
  const Computed attribute(x + "y, z = Split(x) {axis=1, split=[2,1]}\n", 2);
  check_close(attribute["y"], parse_tensor("float32[2,2]{1,2,4,5}"));
  const Computed equal(x + "y, z = Split(x)\n", 2);
  check_close(equal["z"], parse_tensor("float32[1,3]{4,5,6}"));
}

TEST_CASE("Tile of opset 1 repeats one axis") {
  const std::string x = "initializer x: float32[1,2] = {1,2}\n";
  check_y(x + "initializer n: float32[] = {3}\ninitializer a: float32[] = {0}\ny = Tile(x, n, a)\n",
          "float32[3,2]{1,2,1,2,1,2}", 1);
  check_y(x + "initializer n: int64[1] = {2}\ninitializer a: int64[1] = {-1}\ny = Tile(x, n, a)\n",
          "float32[1,4]{1,2,1,2}", 1);
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[2] = {2,2}\ny = Tile(x, n, n)\n", 1), Error);
  CHECK_THROWS_AS(
      Computed(
          x + "initializer n: int64[] = {2}\ninitializer a: int64[] = {2}\ny = Tile(x, n, a)\n", 1),
      Error);
}

TEST_CASE("Gemm, PRelu, LpPool and variadic operators of opset 1") {
  const std::string matrices = R"(initializer a: float32[2,2] = {1,2,3,4}
initializer b: float32[2,2] = {1,0,0,1}
initializer c: float32[2] = {10,20}
)";
  check_y(matrices + "y = Gemm(a, b, c) {alpha=2.0, broadcast=1, transA=1}\n",
          "float32[2,2]{12,26,14,28}", 1);
  check_y(matrices + "y = Gemm(a, b, a) {beta=0.5}\n", "float32[2,2]{1.5,3,4.5,6}", 6);
  check_y(matrices + "y = Max(a, b) {consumed_inputs=[0,0]}\n", "float32[2,2]{1,2,3,4}", 1);
  check_y(matrices + "y = Min(a, b)\n", "float32[2,2]{1,0,0,1}", 6);
  check_y(matrices + "y = Sum(a, b, a)\n", "float32[2,2]{3,4,6,9}", 1);
  check_y(matrices + "y = Mean(a, b)\n", "float32[2,2]{1,1,1.5,2.5}", 6);
  check_y(matrices + "y = Sum(a)\n", "float32[2,2]{1,2,3,4}", 1);
  check_y(R"(initializer x: float32[1,2,2] = {-1,1,-1,1}
initializer s: float32[2] = {2,3}
y = PRelu(x, s)
)",
          "float32[1,2,2]{-2,1,-3,1}", 6);
  const std::string image = "initializer x: float32[1,1,2] = {1,-2}\n";
  check_y(image + "y = LpPool(x) {kernel_shape=[2], p=1.0}\n", "float32[1,1,1]{3}", 1);
  check_y(image + "y = GlobalLpPool(x) {p=3.0}\n", "float32[1,1,1]{2.0800838}", 1);
  CHECK_THROWS_AS(Computed(image + "y = GlobalLpPool(x) {p=1.5}\n", 1), Error);
}

}  // namespace
}  // namespace onnxpress
