#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("binary operators broadcast both ways") {
  check_y(R"(initializer a: float32[2,1] = {1,2}
initializer b: float32[3] = {10,20,30}
y = Sub(b, a)
)",
          "float32[2,3]{9,19,29,8,18,28}");
  check_y(R"(initializer a: float32[2,2,2] = {1,2,3,4,5,6,7,8}
initializer b: float32[2,1] = {10,100}
y = Mul(a, b)
)",
          "float32[2,2,2]{10,20,300,400,50,60,700,800}");
  check_y("initializer a: float32[0,3] = {}\ninitializer b: float32[3] = {1,2,3}\ny = Add(a, b)\n",
          "float32[0,3]{}");
}

TEST_CASE("operands before opset 7 are aligned by axis") {
  check_y(R"(initializer a: float32[1,2,2] = {1,2,3,4}
initializer b: float32[2] = {10,20}
y = Add(a, b) {axis=1, broadcast=1}
)",
          "float32[1,2,2]{11,12,23,24}", 6);
}

TEST_CASE("integers wrap, divide toward zero and never trap") {
  check_y("initializer a: uint8[2] = {250,7}\ninitializer b: uint8[2] = {10,2}\ny = Add(a, b)\n",
          "uint8[2]{4,9}");
  check_y(
      "initializer a: int32[3] = {-7,7,-8}\ninitializer b: int32[3] = {2,-2,3}\ny = Div(a, b)\n",
      "int32[3]{-3,-3,-2}");
  check_y(
      "initializer a: int64[2] = {-9223372036854775808,6}\ninitializer b: int64[1] = {-1}\ny = "
      "Div(a, b)\n",
      "int64[2]{-9223372036854775808,-6}");
  check_y("initializer a: int32[2] = {2,3}\ninitializer b: int32[2] = {10,0}\ny = Pow(a, b)\n",
          "int32[2]{1024,1}");
  check_y(
      "initializer a: int8[4] = {-4,7,5,-5}\ninitializer b: int8[4] = {3,-3,3,3}\ny = Mod(a, b)\n",
      "int8[4]{2,-2,2,1}");
  check_y(
      "initializer a: int8[2] = {-4,7}\ninitializer b: int8[2] = {3,-3}\ny = Mod(a, b) {fmod=1}\n",
      "int8[2]{-1,1}");
  CHECK_THROWS_AS(
      Computed("initializer a: int32[1] = {1}\ninitializer b: int32[1] = {0}\ny = Div(a, b)\n"),
      Error);
}

TEST_CASE("half precision is computed in float32") {
  check_y("initializer a: float16[2] = {1,2}\ninitializer b: float16[1] = {0.5}\ny = Add(a, b)\n",
          "float16[2]{1.5,2.5}");
  check_y("initializer a: bfloat16[2] = {-1,2}\ny = Relu(a)\n", "bfloat16[2]{0,2}");
}

TEST_CASE("Pow keeps the base's type") {
  check_y("initializer a: float32[2] = {2,3}\ninitializer b: int64[1] = {3}\ny = Pow(a, b)\n",
          "float32[2]{8,27}");
  check_y("initializer a: int32[1] = {4}\ninitializer b: float32[1] = {0.5}\ny = Pow(a, b)\n",
          "int32[1]{2}");
}

TEST_CASE("comparisons, logic and selection") {
  check_y(
      "initializer a: float32[3] = {1,2,nan}\ninitializer b: float32[1] = {2}\ny = Less(a, b)\n",
      "bool[3]{1,0,0}");
  check_y(
      "initializer a: uint64[1] = {18446744073709551615}\ninitializer b: uint64[1] = {1}\ny = "
      "Greater(a, b)\n",
      "bool[1]{1}");
  check_y("initializer a: bool[2] = {1,0}\ninitializer b: bool[2,1] = {1,0}\ny = Xor(a, b)\n",
          "bool[2,2]{0,1,1,0}");
  check_y(
      "initializer a: string[2] = {\"x\",\"y\"}\ninitializer b: string[1] = {\"y\"}\ny = Equal(a, "
      "b)\n",
      "bool[2]{0,1}", 19);
  check_y(R"(initializer c: bool[2,1] = {1,0}
initializer a: int16[2] = {1,2}
initializer b: int16[] = {9}
y = Where(c, a, b)
)",
          "int16[2,2]{1,2,9,9}");
}

TEST_CASE("variadic Min, Max, Sum and Mean") {
  const std::string inputs =
      "initializer a: float32[2] = {1,5}\ninitializer b: float32[1] = {3}\n"
      "initializer c: float32[2,1] = {2,6}\n";
  check_y(inputs + "y = Max(a, b, c)\n", "float32[2,2]{3,5,6,6}");
  check_y(inputs + "y = Min(a, b, c)\n", "float32[2,2]{1,2,1,3}");
  check_y(inputs + "y = Mean(a, b, c)\n", "float32[2,2]{2,3.3333333,3.3333333,4.6666667}");
  check_y("initializer a: float32[1] = {1}\ny = Sum(a)\n", "float32[1]{1}");
}

TEST_CASE("activations at hand-computed points") {
  const std::string x = "initializer x: float32[3] = {-2,0,3}\n";
  check_y(x + "y = LeakyRelu(x) {alpha=0.1}\n", "float32[3]{-0.2,0,3}");
  check_y(x + "y = Elu(x)\n", "float32[3]{-0.86466472,0,3}");
  check_y(x + "y = HardSigmoid(x)\n", "float32[3]{0.1,0.5,1}");
  check_y(x + "y = HardSwish(x)\n", "float32[3]{-0.33333333,0,3}");
  check_y(x + "y = Sigmoid(x)\n", "float32[3]{0.11920292,0.5,0.95257413}");
  check_y(x + "y = Softplus(x)\n", "float32[3]{0.12692801,0.69314718,3.0485874}");
  check_y(x + "y = Gelu(x)\n", "float32[3]{-0.04550026,0,2.9959503}", 20);
  check_y(x + "y = Gelu(x) {approximate=\"tanh\"}\n", "float32[3]{-0.04540231,0,2.9963627}", 20);
  check_y(x + "y = Selu(x)\n", "float32[3]{-1.5201665,0,3.152103}");
  check_y("initializer x: float32[4] = {0.5,1.5,2.5,-0.5}\ny = Round(x)\n", "float32[4]{0,2,2,0}");
  check_y("initializer x: float64[1] = {1e-9}\ny = Erf(x)\n", "float64[1]{1.1283791670955126e-09}");
  check_y("initializer x: float32[2] = {-1000,1000}\ny = Sigmoid(x)\n", "float32[2]{0,1}");
}

TEST_CASE("PRelu takes slopes by channel, before opset 7 as a vector too") {
  const std::string x = "initializer x: float32[1,2,1,2] = {-1,2,-3,-4}\n";
  check_y(x + "initializer s: float32[2,1,1] = {0.5,2}\ny = PRelu(x, s)\n",
          "float32[1,2,1,2]{-0.5,2,-6,-8}");
  check_y(x + "initializer s: float32[2] = {0.5,2}\ny = PRelu(x, s)\n",
          "float32[1,2,1,2]{-0.5,2,-6,-8}", 6);
}

TEST_CASE("Clip with bounds as attributes and as inputs") {
  const std::string x = "initializer x: float32[3] = {-5,1,7}\n";
  check_y(x + "y = Clip(x) {max=6.0, min=0.0}\n", "float32[3]{0,1,6}", 10);
  check_y(x + "initializer h: float32[] = {6}\ny = Clip(x, _, h)\n", "float32[3]{-5,1,6}");
  check_y("initializer x: int8[2] = {-5,7}\ninitializer l: int8[] = {-1}\ny = Clip(x, l)\n",
          "int8[2]{-1,7}");
}

TEST_CASE("Cast, CastLike, Identity and Dropout") {
  check_y("initializer x: float32[3] = {-1.7,2.5,300}\ny = Cast(x) {to=6}\n", "int32[3]{-1,2,300}");
  check_y("initializer x: int64[2] = {0,5}\ny = Cast(x) {to=9}\n", "bool[2]{0,1}");
  check_y("initializer x: float32[1] = {1}\ny = Cast(x) {to=\"INT64\"}\n", "int64[1]{1}", 5);
  check_y("initializer x: int64[1] = {3}\ninitializer l: float16[1] = {0}\ny = CastLike(x, l)\n",
          "float16[1]{3}");
  const Computed dropped("initializer x: float32[2] = {1,2}\ny, m = Dropout(x)\n", 13);
  check_close(dropped["y"], parse_tensor("float32[2]{1,2}"));
  check_close(dropped["m"], parse_tensor("bool[2]{1,1}"));
}

TEST_CASE("quantization per tensor, per axis and in blocks") {
  check_y(R"(initializer x: float32[5] = {-3,0.5,1.5,2.5,1000}
initializer s: float32[] = {1}
initializer z: int8[] = {1}
y = QuantizeLinear(x, s, z)
)",
          "int8[5]{-2,1,3,3,127}");
  check_y(R"(initializer x: uint8[2,2] = {1,2,3,4}
initializer s: float32[2] = {0.5,10}
initializer z: uint8[2] = {1,0}
y = DequantizeLinear(x, s, z) {axis=0}
)",
          "float32[2,2]{0,0.5,30,40}");
  check_y(R"(initializer x: int4[2,3] = {-8,7,1,2,3,-1}
initializer s: float16[2,2] = {1,2,3,4}
y = DequantizeLinear(x, s) {axis=1, block_size=2}
)",
          "float16[2,3]{-8,7,2,6,9,-4}", 21);
  check_y(R"(initializer x: float32[3] = {7.4,-9,3.5}
initializer s: float32[] = {1}
y = QuantizeLinear(x, s) {output_dtype=22}
)",
          "int4[3]{7,-8,4}", 21);
  check_y(R"(initializer x: int32[1] = {2147483647}
initializer s: float32[] = {1}
initializer z: int32[] = {2147483646}
y = DequantizeLinear(x, s, z)
)",
          "float32[1]{1}");
  CHECK_THROWS_AS(Computed(R"(initializer x: uint8[2,2] = {1,2,3,4}
initializer s: float32[3] = {1,1,1}
y = DequantizeLinear(x, s) {axis=0}
)"),
                  Error);
}

}  // namespace
}  // namespace onnxpress
