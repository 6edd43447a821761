// Operators on quantized codes. Values marked so were computed by ONNX Runtime 1.31.1 (CPU).
#include "graph/base/convert.h"
#include "graph/base/random.h"
#include "graph/ops/matmul_nbits.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// Inputs of an operator with scales and zero points: name, type, values.
std::string scalar(const std::string& name, const std::string& type, const std::string& value) {
  return fmt::format("initializer {}: {}[] = {{{}}}\n", name, type, value);
}

std::string quantization(const std::string& operand, const std::string& type,
                         const std::string& scale, const std::string& zero_point) {
  return scalar(operand + "_scale", "float32", scale) + scalar(operand + "_zero", type, zero_point);
}

void check_fails(const std::string& body, const std::string& message, std::int64_t opset = 21) {
  CAPTURE(body);
  try {
    const Computed computed(body, opset);
    FAIL_CHECK("no error; expected: " << message);
  } catch (const Error& error) {
    CHECK_MESSAGE(std::string(error.what()).find(message) != std::string::npos, error.what());
  }
}

// --- quantizing and back ---

TEST_CASE("dequantized codes are within half a quantum of what was quantized") {
  struct Case {
    const char* type;
    double low, high;  // of the codes
  };
  const Case cases[] = {{"uint8", 0, 255},        {"int8", -128, 127}, {"uint16", 0, 65535},
                        {"int16", -32768, 32767}, {"uint4", 0, 15},    {"int4", -8, 7},
                        {"uint2", 0, 3},          {"int2", -2, 1}};
  for (const Case& c : cases) {
    CAPTURE(c.type);
    const std::string rest = fmt::format(
        "initializer z: {}[] = {{1}}\nq = QuantizeLinear(x, s, z)\ny = DequantizeLinear(q, s, z)\n",
        c.type);
    const Computed computed(
        "initializer x: float32[500] = random(1)\n" + scalar("s", "float32", "0.01") + rest, 25);
    for (std::int64_t i = 0; i < 500; ++i) {
      const float x = computed["x"].data<float>()[static_cast<std::size_t>(i)];
      const float y = computed["y"].data<float>()[static_cast<std::size_t>(i)];
      const double low = (c.low - 1) * 0.01;
      const double high = (c.high - 1) * 0.01;
      CHECK(std::abs(y - std::clamp<double>(x, low, high)) <= 0.005 + 1e-6);
    }
  }
}

TEST_CASE("quantizing saturates at both ends and rounds ties to even") {
  const std::string x = "initializer x: float32[8] = {-1e9,1e9,0.5,1.5,2.5,-0.5,-1.5,nan}\n";
  const auto check = [&](const std::string& type, const std::string& expected) {
    check_y(
        x + scalar("s", "float32", "1") + scalar("z", type, "0") + "y = QuantizeLinear(x, s, z)\n",
        type + "[8]" + expected, 25);
  };
  check("int8", "{-128,127,0,2,2,0,-2,-128}");
  check("uint8", "{0,255,0,2,2,0,0,0}");
  check("int16", "{-32768,32767,0,2,2,0,-2,-32768}");
  check("uint16", "{0,65535,0,2,2,0,0,0}");
  check("int4", "{-8,7,0,2,2,0,-2,-8}");
  check("uint4", "{0,15,0,2,2,0,0,0}");
  check("int2", "{-2,1,0,1,1,0,-2,-2}");
  check("uint2", "{0,3,0,2,2,0,0,0}");
}

TEST_CASE("QuantizeLinear to 4-bit floats, per axis") {
  check_y(R"(initializer x: float32[3,4] = {0,2.5,4.8,8.6,-30,-20,6,9,-0.25,-2.5,-4.8,-8.6}
initializer s: float32[3] = {2,3,4}
q = QuantizeLinear(x, s) {axis=-2, output_dtype=23}
y = Cast(q) {to=1}
)",
          "float32[3,4]{0,1,2,4,-6,-6,2,3,0,-0.5,-1,-2}", 23);
}

TEST_CASE("QuantizeLinear divides in the given precision and adds zero points to floats too") {
  const std::string x = "initializer x: float32[2] = {2049,1}\n" + scalar("s", "float32", "2");
  // 2049 is 2048 in float16, and 2049 / 2 is 1024.5, which rounds to 1024 in any precision.
  check_y(x + "y = QuantizeLinear(x, s) {output_dtype=5}\n", "int16[2]{1024,0}", 23);
  check_y("initializer x: float32[1] = {2051}\n" + scalar("s", "float32", "2") +
              "y = QuantizeLinear(x, s) {output_dtype=5}\n",
          "int16[1]{1026}", 23);  // 1025.5
  check_y("initializer x: float32[1] = {2051}\n" + scalar("s", "float32", "2") +
              "y = QuantizeLinear(x, s) {output_dtype=5, precision=10}\n",
          "int16[1]{1026}", 23);  // 2052 / 2
  check_y("initializer x: float32[1] = {1000}\n" + scalar("s", "float32", "3") +
              "y = QuantizeLinear(x, s) {output_dtype=5, precision=16}\n",
          "int16[1]{334}", 23);  // 333.3 has 8 bits: 334
  check_y("initializer x: float32[2] = {1,-0.0}\n" + scalar("s", "float32", "2") +
              scalar("z", "float4e2m1", "1") + "q = QuantizeLinear(x, s, z)\ny = Cast(q) {to=1}\n",
          "float32[2]{1.5,1}", 23);
  check_y("initializer x: int32[2] = {7,-300}\n" + scalar("s", "float32", "2") +
              scalar("z", "int8", "1") + "y = QuantizeLinear(x, s, z)\n",
          "int8[2]{5,-128}", 13);
  check_y(R"(initializer x: float32[2] = {3e38,448.1}
initializer s: float32[] = {1}
initializer z: float8e4m3fn[] = {0}
q = QuantizeLinear(x, s, z) {saturate=0}
y = Cast(q) {to=1}
)",
          "float32[2]{nan,448}", 19);
  check_fails(x + "y = QuantizeLinear(x, s) {precision=11}\n", "attribute 'precision'", 23);
  check_fails(x + scalar("z", "int8", "0") + "y = QuantizeLinear(x, s, z) {output_dtype=2}\n",
              "attribute 'output_dtype'");
  check_fails(x + "y = QuantizeLinear(x, s) {output_dtype=6}\n", "expected a type to quantize to");
  check_fails(x + "initializer s2: float32[2] = {1,2}\ny = QuantizeLinear(x, s2) {axis=0}\n",
              "from opset 13", 10);
  check_fails("initializer x: int8[2] = {1,2}\n" + scalar("s", "float32", "2") +
                  scalar("z", "uint8", "0") + "y = DequantizeLinear(x, s, z)\n",
              "expected a zero point of type int8, found uint8");
}

TEST_CASE("DynamicQuantizeLinear covers the range of the data and zero") {
  const Computed computed(R"(initializer x: float32[6] = {0,2,-3,-2.5,1.34,0.5}
y, s, z = DynamicQuantizeLinear(x)
initializer p: float32[2] = {2.5,255}
yp, sp, zp = DynamicQuantizeLinear(p)
initializer e: float32[0] = {}
ye, se, ze = DynamicQuantizeLinear(e)
)");
  // ONNX's example: the range is [-3, 2].
  check_close(computed["y"], parse_tensor("uint8[6]{153,255,0,26,221,179}"));
  check_close(computed["s"], parse_tensor("float32[]{0.0196078438}"));
  check_close(computed["z"], parse_tensor("uint8[]{153}"));
  check_close(computed["yp"], parse_tensor("uint8[2]{2,255}"));  // ties to even
  check_close(computed["zp"], parse_tensor("uint8[]{0}"));
  check_close(computed["se"], parse_tensor("float32[]{1}"));
  CHECK(computed["ye"].size() == 0);
}

// --- convolutions and products ---

const std::string image = "initializer x: uint8[1,1,3,3] = {0,50,100,150,200,250,7,8,9}\n";
const std::string taps = "initializer w: int8[2,1,2,2] = {1,-2,3,4,-128,127,5,-6}\n";

TEST_CASE("ConvInteger sums what exceeds the zero points; padding is the zero point") {
  // From ONNX Runtime.
  check_y(image + R"(initializer w: uint8[2,1,2,2] = {1,254,3,4,128,127,5,250}
initializer xz: uint8[] = {100}
initializer wz: uint8[] = {3}
y = ConvInteger(x, w, xz, wz) {pads=[1,0,0,0]}
)",
          "int32[1,2,3,2]{-50,0,-12250,250,24908,37359,-12550,-100,6100,31000,-4260,8439}");
  // A zero point for each filter; no zero points.
  check_y(image + R"(initializer w: uint8[2,1,1,1] = {5,5}
initializer xz: uint8[] = {50}
initializer wz: uint8[2] = {4,6}
y = ConvInteger(x, w, xz, wz) {strides=[2,2]}
)",
          "int32[1,2,2,2]{-50,50,-43,-41,50,-50,43,41}");
  check_y(image + "initializer w: uint8[1,1,1,1] = {2}\ny = ConvInteger(x, w) {strides=[2,2]}\n",
          "int32[1,1,2,2]{0,200,14,18}");
}

TEST_CASE("ConvInteger is exact where float32 is not") {
  // 70000 products of 255 * 255 exceed int32 and wrap around as accumulation in it does.
  const Computed computed(R"(initializer n: int64[4] = {1,70000,1,1}
initializer one: uint8[1] = {255}
x = Expand(one, n)
y = ConvInteger(x, x)
)");
  const std::int64_t sum = std::int64_t{70000} * 255 * 255;
  CHECK(computed["y"].data<std::int32_t>()[0] ==
        static_cast<std::int32_t>(static_cast<std::uint32_t>(sum)));
}

std::string qlinear_conv(const std::string& rest) {
  return taps + scalar("xs", "float32", "0.02") + scalar("xz", "uint8", "100") + R"(
initializer ws: float32[2] = {0.01,0.03}
initializer wz: int8[2] = {0,0}
initializer ys: float32[] = {0.1}
initializer yz: uint8[] = {128}
initializer b: int32[2] = {1000,-2000}
)" + rest;
}

TEST_CASE("QLinearConv requantizes per filter, channels first and last") {
  // From ONNX Runtime.
  const char* const expected = "uint8[1,2,3,2]{129,130,131,132,128,128,115,115,153,152,154,154}";
  check_y(
      image + qlinear_conv("y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b) {pads=[1,0,0,0]}\n"),
      expected);
  check_y("initializer x: uint8[1,3,3,1] = {0,50,100,150,200,250,7,8,9}\n" +
              qlinear_conv("y = com.microsoft.QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b) "
                           "{pads=[1,0,0,0], channels_last=1}\n"),
          "uint8[1,3,2,2]{129,115,130,115,131,153,132,152,128,154,128,154}");
  check_y(
      "initializer x: uint8[0,1,3,1] = {}\ninitializer w: uint8[2,1,1,1] = {1,2}\n"
      "y = ConvInteger(x, w)\n",
      "int32[0,2,3,1]{}");
}

TEST_CASE("convolutions of codes refuse what does not fit") {
  const auto conv = [](const std::string& x, const std::string& call) {
    return x + qlinear_conv(call);
  };
  check_fails(conv(image, "y = QLinearConv(x, xz, xz, w, ws, wz, ys, yz)\n"), "expected a scale");
  check_fails(conv(image, "y = QLinearConv(x, ws, xz, w, ws, wz, ys, yz)\n"),
              "expected one element");
  check_fails(conv(image, "y = QLinearConv(x, xs, yz, w, ws, xz, ys, yz)\n"),
              "expected a zero point of type int8, found uint8");
  check_fails(conv(image, "y = QLinearConv(x, xs, xz, w, ws, wz, ys, b)\n"), "expected");
  check_fails(conv(image, "y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, ws)\n"),
              "expected a bias of type int32");
  check_fails(conv(image + "initializer b3: int32[3] = {1,2,3}\n",
                   "y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b3)\n"),
              "expected 2 biases, found 3");
  check_fails(conv(image + "initializer s3: float32[3] = {1,2,3}\n",
                   "y = QLinearConv(x, xs, xz, w, s3, wz, ys, yz)\n"),
              "");
  check_fails(conv("initializer x: uint8[1,2,3,3] = zeros\n",
                   "y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz)\n"),
              "expected 1 channels, found 2");
  check_fails(image + "initializer w: float32[1,1,1,1] = {1}\ny = ConvInteger(x, w)\n",
              "expected int8 or uint8, found float32");
  check_fails(image +
                  "initializer w: uint8[1,1,1,1] = {1}\ninitializer z: uint8[2] = {1,2}\n"
                  "y = ConvInteger(x, w, z)\n",
              "");
}

const std::string matrices = R"(initializer a: uint8[2,3] = {0,128,255,3,4,5}
initializer b: int8[3,2] = {1,-2,3,4,-128,127}
initializer as: float32[] = {0.02}
initializer az: uint8[] = {100}
initializer bs: float32[2] = {0.01,0.03}
initializer bz: int8[2] = {0,2}
initializer bias: float32[2] = {1,-1}
initializer ys: float32[] = {0.4}
initializer yz: uint8[] = {128}
)";

TEST_CASE("products of codes, per column") {
  // From ONNX Runtime.
  check_y(matrices + "y = MatMulInteger(a, b, az, bz)\n", "int32[2,2]{-19856,19831,11775,-11679}");
  check_y(matrices + "y = QLinearMatMul(a, as, az, b, bs, bz, ys, yz)\n",
          "uint8[2,2]{118,158,134,110}");
  check_y(matrices + "y = com.microsoft.MatMulIntegerToFloat(a, b, as, bs, az, bz, bias)\n",
          "float32[2,2]{-2.97119999,10.8985996,3.35500002,-8.00739956}");
  check_y(R"(initializer a: float32[2,3] = {-1,0.5,2,0,0.1,-0.3}
initializer b: int8[3,2] = {1,-2,3,4,-128,127}
initializer bs: float32[] = {0.01}
initializer bz: int8[] = {2}
initializer bias: float32[2] = {1,-1}
y = com.microsoft.DynamicQuantizeMatMul(a, b, bs, bz, bias)
)",
          "float32[2,2]{-1.58505893,1.54988241,1.39858818,-1.38047063}");
}

TEST_CASE("products of codes, per row and in batches") {
  check_y(R"(initializer a: uint8[2,2] = {1,2,3,4}
initializer b: uint8[2,1] = {10,1}
initializer z: uint8[2] = {1,3}
y = MatMulInteger(a, b, z)
)",
          "int32[2,1]{1,1}");
  check_y(R"(initializer a: uint8[2,1,2] = {1,2,3,4}
initializer b: uint8[2] = {10,1}
initializer z: uint8[2,1,1] = {1,3}
y = MatMulInteger(a, b, z)
)",
          "int32[2,1]{1,1}");
  check_y(R"(initializer a: int8[2,2] = {1,2,3,4}
initializer b: int8[2] = {10,1}
initializer one: float32[] = {1}
initializer zero: int8[] = {0}
initializer s: float32[2] = {1,0.5}
initializer z: int8[2] = {5,-5}
y = QLinearMatMul(a, s, zero, b, one, zero, s, z)
)",
          "int8[2]{17,29}");
}

TEST_CASE("QLinearMatMul with scales and codes in narrow floats") {
  check_y(R"(initializer a: float8e4m3fn[1,2] = {1.5,-2}
initializer b: float8e4m3fn[2,2] = {4,0.5,1,448}
initializer s: float16[] = {0.5}
initializer z: float8e4m3fn[] = {0}
y = QLinearMatMul(a, s, z, b, s, z, s, z)
)",
          "float8e4m3fn[1,2]{2,-448}", 21);  // 4 * 0.5 and (0.75 - 896) * 0.5 = -447.6
  check_y(R"(initializer a: int8[1,2] = {1,2}
initializer b: int8[2,1] = {3,5}
initializer s: bfloat16[] = {0.5}
initializer z: int8[] = {0}
y = QLinearMatMul(a, s, z, b, s, z, s, z)
)",
          "int8[1,1]{6}", 21);  // 6.5, to even
}

TEST_CASE("products of codes refuse what does not fit") {
  check_fails(matrices + "y = MatMulInteger(a, a)\n", "depths");
  check_fails(matrices + "y = MatMulInteger(as, b)\n", "");
  check_fails(matrices + "y = MatMulInteger(a, b, bz)\n", "expected zero points of type uint8");
  check_fails(matrices + "initializer z3: int8[3] = {0,0,0}\ny = MatMulInteger(a, b, az, z3)\n",
              "");
  check_fails(matrices + "initializer f: float32[2,3] = zeros\ny = MatMulInteger(f, b)\n",
              "expected int8 or uint8");
  check_fails(matrices + "y = QLinearMatMul(a, as, az, b, bs, bz, ys, bias)\n", "8-bit type");
  check_fails(matrices + "y = com.microsoft.MatMulIntegerToFloat(a, b, as, bs, az, bz, ys)\n",
              "expected one bias per column");
  check_fails(matrices + "y = com.microsoft.DynamicQuantizeMatMul(a, b, as)\n", "float32");
  check_fails(R"(initializer a: float8e4m3fn[1,2] = {1.5,-2}
initializer b: int8[2,1] = {3,5}
initializer s: float32[] = {0.5}
initializer z: float8e4m3fn[] = {0}
initializer zb: int8[] = {0}
y = QLinearMatMul(a, s, z, b, s, zb, s, zb)
)",
              "both operands in integers or both in float8");
}

TEST_CASE("QGemm with and without a scale of the result") {
  const std::string more = R"(initializer bt: int8[2,3] = {1,3,-128,-2,4,127}
initializer c: int32[2] = {100,-500}
)";
  // From ONNX Runtime.
  check_y(matrices + more +
              "y = com.microsoft.QGemm(a, as, az, bt, bs, bz, c, ys, yz) {transB=1, alpha=0.5}\n",
          "uint8[2,2]{123,142,131,119}");
  check_y(
      matrices + more + "y = com.microsoft.QGemm(a, as, az, bt, bs, bz, c) {transB=1, alpha=0.5}\n",
      "float32[2,2]{-1.9756,5.7992997,1.1875,-3.6536999}");
  check_fails(matrices + more + "y = com.microsoft.QGemm(a, as, az, bt, bs, bz)\n", "depths");
  check_fails(matrices + more + "y = com.microsoft.QGemm(a, as, az, b, bs, bz, bias)\n",
              "expected C in int32");
  check_fails(matrices + more + "y = com.microsoft.QGemm(a, as, az, b, bs, bz, c, ys)\n", "");
  check_fails(matrices +
                  "initializer c: int32[3] = {1,2,3}\n"
                  "y = com.microsoft.QGemm(a, as, az, b, bs, bz, c)\n",
              "");
}

// --- elementwise ---

TEST_CASE("elementwise operators on codes") {
  const std::string operands = R"(initializer a: uint8[6] = {0,3,128,200,255,17}
initializer b: uint8[6] = {255,100,7,0,30,201}
)" + quantization("a", "uint8", "0.03", "121") +
                               quantization("b", "uint8", "0.05", "3");
  // From ONNX Runtime.
  check_y(operands + quantization("y", "uint8", "0.07", "125") +
              "y = com.microsoft.QLinearAdd(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, "
              "y_zero)\n",
          "uint8[6]{253,144,131,157,202,222}");
  check_y(operands + quantization("y", "uint8", "0.17", "125") +
              "y = com.microsoft.QLinearMul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, "
              "y_zero)\n",
          "uint8[6]{0,24,125,123,157,0}");
  const std::string x = "initializer x: int8[7] = {-128,-100,-7,0,3,50,127}\n" +
                        quantization("x", "int8", "0.05", "-7");
  check_y(x + quantization("y", "int8", "0.00390625", "-128") +
              "y = com.microsoft.QLinearSigmoid(x, x_scale, x_zero, y_scale, y_zero)\n",
          "int8[7]{-127,-126,0,22,31,114,127}");
  check_y(x + quantization("y", "int8", "0.04", "5") +
              "y = com.microsoft.QLinearLeakyRelu(x, x_scale, x_zero, y_scale, y_zero) "
              "{alpha=0.2}\n",
          "int8[7]{-25,-18,5,14,17,76,127}");
}

TEST_CASE("elementwise operators on codes broadcast, with zero points omitted") {
  check_y(R"(initializer a: int8[2,1] = {1,2}
initializer b: int8[3] = {10,-20,100}
initializer s: float32[] = {1}
y = com.microsoft.QLinearAdd(a, s, _, b, s, _, s)
)",
          "int8[2,3]{11,-19,101,12,-18,102}");
  check_fails(R"(initializer a: int8[2] = {1,2}
initializer b: uint8[2] = {10,20}
initializer s: float32[] = {1}
y = com.microsoft.QLinearAdd(a, s, _, b, s, _, s)
)",
              "operands of one type");
  check_fails(R"(initializer a: int16[2] = {1,2}
initializer s: float32[] = {1}
y = com.microsoft.QLinearMul(a, s, _, a, s, _, s)
)",
              "expected int8 or uint8, found int16");
  check_fails(R"(initializer a: int8[2] = {1,2}
initializer b: int8[3] = {1,2,3}
initializer s: float32[] = {1}
y = com.microsoft.QLinearMul(a, s, _, b, s, _, s)
)",
              "");
}

TEST_CASE("QLinearWhere and QLinearConcat bring their operands to one scale") {
  const std::string operands = R"(initializer x: uint8[3] = {10,20,30}
initializer v: uint8[2,1] = {100,7}
)" + quantization("x", "uint8", "1", "10") +
                               quantization("v", "uint8", "0.5", "0") +
                               quantization("y", "uint8", "0.25", "2");
  check_y(operands + R"(initializer c: bool[2,3] = {1,0,1,0,1,0}
y = com.microsoft.QLinearWhere(c, x, x_scale, x_zero, v, v_scale, v_zero, y_scale, y_zero)
)",
          "uint8[2,3]{2,202,82,16,42,16}");
  check_y(operands + R"(initializer w: uint8[1] = {4}
y = com.microsoft.QLinearConcat(y_scale, y_zero, x, x_scale, x_zero, w, v_scale, v_zero) {axis=0}
)",
          "uint8[4]{2,42,82,10}");
  check_fails(operands + "y = com.microsoft.QLinearConcat(y_scale, y_zero, x, x_scale) {axis=0}\n",
              "found 4 inputs");
  check_fails(operands +
                  "y = com.microsoft.QLinearConcat(y_scale, y_zero, x, x_scale, x_zero, v, "
                  "v_scale, v_zero) {axis=0}\n",
              "one rank");
  check_fails(
      operands + "y = com.microsoft.QLinearConcat(y_scale, y_zero, x, x_scale, x_zero) {axis=1}\n",
      "");
}

TEST_CASE("QLinearSoftmax over one axis or all that follow") {
  const std::string x = "initializer x: uint8[2,4] = {10,20,30,200,0,0,255,255}\n" +
                        quantization("x", "uint8", "0.02", "3") +
                        quantization("y", "uint8", "0.00390625", "0");
  const std::string call = "y = com.microsoft.QLinearSoftmax(x, x_scale, x_zero, y_scale, y_zero) ";
  // From ONNX Runtime.
  check_y(x + call + "{axis=-1, opset=13}\n", "uint8[2,4]{5,6,8,236,1,1,127,127}");
  check_y(x + call + "{axis=0, opset=13}\n", "uint8[2,4]{141,153,3,64,115,103,253,192}");
  check_y("initializer x: int8[2,4] = {10,20,30,120,-128,0,127,127}\n" +
              quantization("x", "int8", "0.02", "3") +
              quantization("y", "int8", "0.00390625", "-128") + call + "{axis=1, opset=12}\n",
          "int8[2,4]{-108,-103,-98,53,-127,-118,-5,-5}");
  // A probability of 1 saturates.
  check_y("initializer x: int8[1,2] = {127,-128}\n" + quantization("x", "int8", "1", "0") +
              quantization("y", "int8", "0.00390625", "-128") + call + "{opset=13}\n",
          "int8[1,2]{127,-128}");
  check_fails(x + call + "{axis=2, opset=13}\n", "");
  check_fails(x + call + "\n", "opset");
}

// --- pooling and means ---

TEST_CASE("pooling of codes") {
  std::string values = "0";
  for (int i = 1; i < 24; ++i) values += fmt::format(",{}", i * 10);
  const std::string x = "initializer x: uint8[1,2,3,4] = {" + values + "}\n" +
                        quantization("x", "uint8", "0.5", "7") +
                        quantization("y", "uint8", "0.3", "4");
  const std::string rest = "(x, x_scale, x_zero, y_scale, y_zero)";
  // From ONNX Runtime.
  check_y(x + "y = com.microsoft.QLinearAveragePool" + rest + " {kernel_shape=[2,2]}\n",
          "uint8[1,2,2,3]{34,51,67,101,117,134,234,251,255,255,255,255}");
  check_y(x + "y = com.microsoft.QLinearGlobalAveragePool" + rest + "\n", "uint8[1,2,1,1]{84,255}");
  check_y(x + "y = com.microsoft.QLinearGlobalAveragePool" + rest + " {channels_last=1}\n",
          "uint8[1,1,1,4]{159,176,192,209}");
  check_y(x + "y = com.microsoft.NhwcMaxPool(x) {kernel_shape=[1,2]}\n",
          "uint8[1,2,2,4]{40,50,60,70,80,90,100,110,160,170,180,190,200,210,220,230}");
  check_y(x + "y = com.microsoft.QLinearReduceMean" + rest + " {axes=[1,-2]}\n",
          "uint8[1,1,1,4]{159,176,192,209}");
  check_y(x + "y = com.microsoft.QLinearReduceMean" + rest + " {keepdims=0}\n", "uint8[]{184}");
  check_fails(x + "y = com.microsoft.NhwcMaxPool(x_scale) {kernel_shape=[1,2]}\n", "");
  check_fails(x + "y = com.microsoft.NhwcMaxPool(x) {kernel_shape=[5,2]}\n", "does not fit");
  check_fails(x + "y = com.microsoft.QLinearReduceMean" + rest + " {axes=[4]}\n", "");
  check_fails(x + "y = com.microsoft.QLinearGlobalAveragePool(x_zero, x_scale, x_zero, y_scale, "
                  "y_zero)\n",
              "at least 2 axes");
  check_fails("initializer x: uint8[1,1,0] = {}\n" + quantization("x", "uint8", "1", "0") +
                  "y = com.microsoft.QLinearGlobalAveragePool(x, x_scale, x_zero, x_scale, "
                  "x_zero)\n",
              "at least one element");
}

// --- weights in blocks ---

TEST_CASE("MatMulNBits is a product with the dequantized weights") {
  for (const int bits : {2, 4, 8}) {
    for (const char* zero_points : {"none", "packed", "float"}) {
      CAPTURE(bits);
      CAPTURE(zero_points);
      constexpr std::int64_t depth = 40, columns = 70, block = 16, blocks = 3;
      Random random(7);
      const std::int64_t bytes = block * bits / 8;
      const std::int64_t zero_bytes = (blocks * bits + 7) / 8;
      const auto random_bytes = [&](std::int64_t count) {
        std::string text;
        for (std::int64_t i = 0; i < count; ++i)
          text += fmt::format("{}{}", i == 0 ? "" : ",", random.below(256));
        return text;
      };
      const std::string kind = zero_points;
      const Computed computed(fmt::format(
          R"(initializer a: float32[2,3,{}] = random(1)
initializer w: uint8[{},{},{}] = {{{}}}
initializer s: float32[{},{}] = random(2)
initializer p: uint8[{},{}] = {{{}}}
initializer f: float32[{},{}] = random(3)
initializer b: float32[{}] = random(4)
y = com.microsoft.MatMulNBits(a, w, s, {}, _, b) {{K={}, N={}, bits={}, block_size={}}}
)",
          depth, columns, blocks, bytes, random_bytes(columns * blocks * bytes), columns, blocks,
          columns, zero_bytes, random_bytes(columns * zero_bytes), columns, blocks, columns,
          kind == "packed"  ? "p"
          : kind == "float" ? "f"
                            : "_",
          depth, columns, bits, block));
      const auto packed = [bits](const Tensor& tensor, std::int64_t row, std::int64_t row_bytes,
                                 std::int64_t index) {
        const std::int64_t bit = index * bits;
        const int byte =
            tensor.data<std::uint8_t>()[static_cast<std::size_t>(row * row_bytes + bit / 8)];
        return static_cast<double>((byte >> (bit % 8)) & ((1 << bits) - 1));
      };
      std::vector<float> expected;
      for (std::int64_t row = 0; row < 6; ++row)
        for (std::int64_t n = 0; n < columns; ++n) {
          double sum = computed["b"].data<float>()[static_cast<std::size_t>(n)];
          for (std::int64_t k = 0; k < depth; ++k) {
            const auto group = static_cast<std::size_t>(n * blocks + k / block);
            double zero = 1 << (bits - 1);
            if (kind == "packed") zero = packed(computed["p"], n, zero_bytes, k / block);
            if (kind == "float") zero = computed["f"].data<float>()[group];
            sum += computed["a"].data<float>()[static_cast<std::size_t>(row * depth + k)] *
                   (packed(computed["w"], n, blocks * bytes, k) - zero) *
                   computed["s"].data<float>()[group];
          }
          expected.push_back(static_cast<float>(sum));
        }
      check_close(computed["y"], Tensor::of<float>({2, 3, columns}, expected), 1e-3);
    }
  }
}

const std::string nbits = R"(initializer a: float32[1,16] = ones
initializer w: uint8[1,1,8] = {152,152,152,152,152,152,152,152}
initializer s: float32[1,1] = {0.5}
)";

TEST_CASE("MatMulNBits in float16, with a group index, and flat scales") {
  // Codes 8 and 9 by turns: 8 * 0.5.
  check_y(nbits + "y = com.microsoft.MatMulNBits(a, w, s) {K=16, N=1, block_size=16}\n",
          "float32[1,1]{4}");
  check_y(R"(initializer a: float16[1,17] = ones
initializer w: uint8[1,2,8] = {152,152,152,152,152,152,152,152,152,0,0,0,0,0,0,0}
initializer s: float16[2] = {0.5,4}
initializer g: int32[17] = {0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}
y = com.microsoft.MatMulNBits(a, w, s, _, g) {K=17, N=1, bits=4, block_size=16}
)",
          "float16[1,1]{7.5}");  // 7 nines of scale 0.5, one of scale 4
}

TEST_CASE("MatMulNBits refuses what does not fit") {
  const auto call = [](const std::string& inputs, const std::string& attributes) {
    return nbits + "y = com.microsoft.MatMulNBits(" + inputs + ") {" + attributes + "}\n";
  };
  check_fails(call("a, w, s", "N=1, block_size=16"), "K");
  check_fails(call("a, w, s", "K=16, N=0, block_size=16"), "found 0");
  check_fails(call("a, w, s", "K=16, N=1, block_size=16, bits=3"), "expected 2, 4 or 8, found 3");
  check_fails(call("a, w, s", "K=16, N=1, block_size=24"), "power of two");
  check_fails(call("a, w, s", "K=16, N=1, block_size=-9223372036854775807"), "power of two");
  check_fails(call("a, w, s", "K=16, N=1, block_size=16, weight_prepacked=1"), "layout");
  check_fails(call("a, w, s", "K=15, N=1, block_size=16"), "");
  check_fails(call("a, w, s", "K=16, N=2, block_size=16"), "expected weights [2,1,8]");
  check_fails(call("a, w, a", "K=16, N=1, block_size=16"), "expected scales [1,1]");
  check_fails(call("a, w, s, w", "K=16, N=1, block_size=16"), "expected zero points [1,1]");
  check_fails(call("a, w, s, _, _, a", "K=16, N=1, block_size=16"), "expected 1 biases");
  check_fails(nbits +
                  "initializer g: int32[16] = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1}\n"
                  "y = com.microsoft.MatMulNBits(a, w, s, _, g) {K=16, N=1, block_size=16}\n",
              "expected group indices below 1, found 1");
  check_fails(nbits +
                  "initializer g: int32[16] = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-1}\n"
                  "y = com.microsoft.MatMulNBits(a, w, s, _, g) {K=16, N=1, block_size=16}\n",
              "found -1");
}

TEST_CASE("GatherBlockQuantized dequantizes the rows it takes") {
  // Two codes to a byte; blocks of 16 along the last axis.
  std::string bytes;
  for (int i = 0; i < 2 * 9; ++i) bytes += fmt::format("{}{}", i == 0 ? "" : ",", (i % 16) * 17);
  const std::string table = "initializer d: uint8[2,9] = {" + bytes + R"(}
initializer i: int64[2] = {-1,0}
initializer s: float32[2,2] = {1,10,2,20}
initializer z: uint8[2,1] = {33,67}
)";
  const auto row = [](int first, float low_scale, float high_scale, float low_zero,
                      float high_zero) {
    std::string text;
    for (int k = 0; k < 18; ++k) {
      const float code = static_cast<float>((first + k / 2) % 16);
      text += fmt::format(",{}",
                          k < 16 ? (code - low_zero) * low_scale : (code - high_zero) * high_scale);
    }
    return text;
  };
  const std::string options = " {quantize_axis=-1, block_size=16}\n";
  check_y(table + "y = com.microsoft.GatherBlockQuantized(d, i, s)" + options,
          "float32[2,18]{" + (row(9, 2, 20, 8, 8) + row(0, 1, 10, 8, 8)).substr(1) + "}");
  // Zero points 1 and 2 of the first row, 3 and 4 of the second, low bits first.
  check_y(table + "y = com.microsoft.GatherBlockQuantized(d, i, s, z)" + options,
          "float32[2,18]{" + (row(9, 2, 20, 3, 4) + row(0, 1, 10, 1, 2)).substr(1) + "}");
  check_y(R"(initializer d: int4[2,3] = {-8,7,1,2,3,-1}
initializer i: int32[1,1] = {1}
initializer s: float16[2,1] = {1,0.5}
y = com.microsoft.GatherBlockQuantized(d, i, s)
)",
          "float16[1,1,3]{1,1.5,-0.5}");
  check_y(R"(initializer d: int4[2,3] = {-8,7,1,2,3,-1}
initializer i: int32[1] = {2}
initializer s: float32[1,3] = {1,2,3}
initializer z: int4[1,3] = {0,0,2}
y = com.microsoft.GatherBlockQuantized(d, i, s, z) {gather_axis=1, quantize_axis=0}
)",
          "float32[2,1]{-3,-9}");
  check_y(R"(initializer d: float8e4m3fn[2,3] = {-8,7,1,2,3,-1}
initializer i: int32[1] = {1}
initializer s: float32[1,1] = {2}
y = com.microsoft.GatherBlockQuantized(d, i, s) {block_size=0}
)",
          "float32[1,3]{4,6,-2}");
  check_fails(table +
                  "y = com.microsoft.GatherBlockQuantized(d, i, s) {block_size=16}\n"
                  "initializer j: int64[1] = {2}\n"
                  "u = com.microsoft.GatherBlockQuantized(d, j, s) {block_size=16}\n",
              "index 2 is out of range");
  check_fails(table + "y = com.microsoft.GatherBlockQuantized(d, i, s) {block_size=8}\n",
              "power of two");
  check_fails(table + "y = com.microsoft.GatherBlockQuantized(d, i, s) {block_size=32}\n",
              "expected scales [2,1]");
  check_fails(table + "y = com.microsoft.GatherBlockQuantized(d, i, s, d) {block_size=16}\n",
              "expected zero points [2,1]");
  check_fails(table + "y = com.microsoft.GatherBlockQuantized(d, i, s) {bits=5, block_size=16}\n",
              "expected 2, 4 or 8");
  check_fails(table + "y = com.microsoft.GatherBlockQuantized(d, i, s) {gather_axis=1}\n",
              "gathered along its first axis");
}

}  // namespace
}  // namespace onnxpress
