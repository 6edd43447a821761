// Operators of com.microsoft that fuse a few of ai.onnx's.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("FusedMatMul reads its operands transposed, also along the batch") {
  const std::string ab =
      "initializer a: float32[2,2] = {1,2,3,4}\ninitializer b: float32[2,1] = {10,100}\n";
  check_y(ab + "y = com.microsoft.FusedMatMul(a, b) {alpha=2.0, transA=1}\n",
          "float32[2,1]{620,840}");
  check_y(ab + "y = com.microsoft.TransposeMatMul(b, b) {transA=1}\n", "float32[1,1]{10100}");
  // Axis 0 holds the rows, axis 1 the batch: rows (1,2), (5,6) in the first matrix.
  const std::string batched =
      "initializer a: float32[2,2,2] = {1,2,3,4,5,6,7,8}\ninitializer b: float32[2] = {1,10}\n";
  check_y(batched + "y = com.microsoft.FusedMatMul(a, b) {transBatchA=1}\n",
          "float32[2,2]{21,65,43,87}");
  check_y(batched + "y = com.microsoft.FusedMatMul(b, a) {transBatchB=1}\n",
          "float32[2,2]{51,62,73,84}");
  CHECK_THROWS_AS(Computed(ab + "y = com.microsoft.FusedMatMul(b, b)\n"), Error);
}

TEST_CASE("FusedGemm and FusedConv apply an activation to the sum") {
  const std::string ab =
      "initializer a: float32[1,2] = {1,-2}\ninitializer b: float32[2,2] = {1,0,0,1}\n";
  check_y(ab + "y = com.microsoft.FusedGemm(a, b) {activation=\"Relu\"}\n", "float32[1,2]{1,0}");
  check_y(ab + "y = com.microsoft.FusedGemm(a, b) {activation=\"LeakyRelu\", "
               "activation_alpha=0.25}\n",
          "float32[1,2]{1,-0.5}");
  const std::string xw =
      "initializer x: float32[1,1,2,1] = {1,-3}\ninitializer w: float32[1,1,1,1] = {2}\n"
      "initializer b: float32[1] = {1}\ninitializer z: float32[1,1,2,1] = {-5,9}\n";
  check_y(xw + "y = com.microsoft.FusedConv(x, w, b, z) {activation=\"Relu\"}\n",
          "float32[1,1,2,1]{0,4}");
  check_y(xw + "y = com.microsoft.FusedConv(x, w, b) {activation=\"Clip\", "
               "activation_params=[-1.0,2.0]}\n",
          "float32[1,1,2,1]{2,-1}");
  CHECK_THROWS_AS(Computed(xw + "y = com.microsoft.FusedConv(x, w) {activation=\"Clip\"}\n"),
                  Error);
  CHECK_THROWS_AS(Computed(xw + "y = com.microsoft.FusedConv(x, w) {activation=\"Sine\"}\n"),
                  Error);
  CHECK_THROWS_AS(Computed(xw + "y = com.microsoft.FusedConv(x, w, b, w)\n"), Error);
}

TEST_CASE("Gelu in its forms") {
  const std::string x = "initializer x: float32[2] = {1,-2}\ninitializer b: float32[2] = {1,1}\n";
  check_y(x + "y = com.microsoft.Gelu(x)\n", "float32[2]{0.8413447,-0.04550026}");
  check_y(x + "y = com.microsoft.FastGelu(x)\n", "float32[2]{0.8411920,-0.04540229}");
  check_y(x + "y = com.microsoft.BiasGelu(x, b)\n", "float32[2]{1.9544997,-0.15865525}");
  check_y(x + "y = com.microsoft.QuickGelu(x) {alpha=1.0}\n", "float32[2]{0.7310586,-0.2384058}");
  check_y(x + "y = com.microsoft.BiasAdd(x, b, x)\n", "float32[2]{3,-3}");
  CHECK_THROWS_AS(
      Computed(x + "initializer c: float32[3] = ones\ny = com.microsoft.BiasGelu(x, c)\n"), Error);
}

TEST_CASE("SkipLayerNormalization normalizes the sum and leaves its inputs alone") {
  const std::string x =
      "initializer x: float32[1,1,2] = {1,5}\ninitializer s: float32[1,2] = {2,0}\n"
      "initializer g: float32[2] = {1,10}\ninitializer b: float32[2] = {0.5,0.5}\n";
  const Computed computed(x +
                          "y, m, i, sum = com.microsoft.SkipLayerNormalization(x, s, g, b, b)\n");
  check_close(computed["y"], parse_tensor("float32[1,1,2]{-0.5,10.5}"));
  check_close(computed["m"], parse_tensor("float32[1,1,1]{4.5}"));
  check_close(computed["i"], parse_tensor("float32[1,1,1]{1}"));
  check_close(computed["sum"], parse_tensor("float32[1,1,2]{3.5,5.5}"));
  check_close(computed["x"], parse_tensor("float32[1,1,2]{1,5}"));
  // Mean square of (3, 5) is 17.
  check_y(x + "y = com.microsoft.SkipSimplifiedLayerNormalization(x, s, g)\n",
          "float32[1,1,2]{0.7276069,12.126781}");
  check_y(
      "initializer x: float16[1,2] = {3,4}\ninitializer g: float32[2] = {1,2}\n"
      "y = SimplifiedLayerNormalization(x, g) {epsilon=0.0}\n",
      "float32[1,2]{0.8485281,2.2627417}");
  CHECK_THROWS_AS(Computed(x + "y = com.microsoft.SkipLayerNormalization(x, x, s)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "initializer o: float32[1,3,2] = ones\n"
                               "y = com.microsoft.SkipLayerNormalization(x, o, g)\n"),
                  Error);
}

TEST_CASE("EmbedLayerNormalization looks up, adds and counts") {
  const std::string ids =
      "initializer n: int32[1,2] = {1,0}\ninitializer w: float32[2,2] = {0,0,1,5}\n"
      "initializer p: float32[2,2] = {0,0,3,1}\ninitializer g: float32[2] = {1,1}\n"
      "initializer b: float32[2] = {0,0}\ninitializer m: int32[1,2] = {1,0}\n";
  const Computed computed(
      ids + "y, c, s = com.microsoft.EmbedLayerNormalization(n, _, w, p, _, g, b, m)\n");
  check_close(computed["y"], parse_tensor("float32[1,2,2]{-1,1,1,-1}"));
  check_close(computed["c"], parse_tensor("int32[1]{1}"));
  check_close(computed["s"], parse_tensor("float32[1,2,2]{1,5,3,1}"));
  CHECK_THROWS_AS(Computed(ids + "initializer far: int32[1,2] = {1,2}\ny = "
                                 "com.microsoft.EmbedLayerNormalization(far, _, w, p, _, g, b)\n"),
                  Error);
}

TEST_CASE("Inverse, Trilu, CDist") {
  check_y("initializer x: float32[2,2,2] = {0,2,1,0,1,1,0,1}\ny = com.microsoft.Inverse(x)\n",
          "float32[2,2,2]{0,1,0.5,0,1,-1,0,1}");
  const std::string x = "initializer x: int32[2,3] = {1,2,3,4,5,6}\ninitializer k: int64[] = ";
  check_y(x + "{1}\ny = com.microsoft.Trilu(x, k)\n", "int32[2,3]{0,2,3,0,0,6}");
  check_y(x + "{0}\ny = com.microsoft.Trilu(x, k) {upper=0}\n", "int32[2,3]{1,0,0,4,5,0}");
  check_y(x + "{-9223372036854775808}\ny = com.microsoft.Trilu(x, k)\n", "int32[2,3]{1,2,3,4,5,6}");
  check_y(
      "initializer a: float32[1,2] = {0,0}\ninitializer b: float32[2,2] = {3,4,0,1}\n"
      "y = com.microsoft.CDist(a, b) {metric=\"euclidean\"}\n",
      "float32[1,2]{5,1}");
  CHECK_THROWS_AS(Computed("initializer x: float32[2,3] = ones\ny = com.microsoft.Inverse(x)\n"),
                  Error);
  CHECK_THROWS_AS(Computed("initializer x: float32[3] = ones\ny = com.microsoft.Trilu(x)\n"),
                  Error);
  CHECK_THROWS_AS(Computed("initializer x: float32[2,2] = ones\ninitializer z: float32[2,3] = "
                           "ones\ny = com.microsoft.CDist(x, z)\n"),
                  Error);
}

}  // namespace
}  // namespace onnxpress
