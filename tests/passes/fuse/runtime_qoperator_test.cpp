// QDQ models as operators on 8-bit codes.
#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"
#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

const std::string step = "runtime_qoperator{level=runtime}";
const std::string head = "model ir=8 opset=17\n";

std::string scalar(const std::string& name, const std::string& type, const std::string& value) {
  return "initializer " + name + ": " + type + "[] = {" + value + "}\n";
}

// Input x of `dims`, quantized and dequantized to xd; scale ys and zero point yz of the result.
std::string around(const std::string& dims, const std::string& type = "uint8", int x_zero = 120, int y_zero = 100,
                   const std::string& y_scale = "0.05") {
  return head + "input x: float32[" + dims + "]\n" + scalar("xs", "float32", "0.02") +
         scalar("xz", type, std::to_string(x_zero)) + scalar("ys", "float32", y_scale) +
         scalar("yz", type, std::to_string(y_zero)) + "xq = QuantizeLinear(x, xs, xz)\nxd = DequantizeLinear(xq, xs, xz)\n";
}
const std::string end = "yq = QuantizeLinear(t, ys, yz)\ny = DequantizeLinear(yq, ys, yz)\noutput y\n";

std::string conv_weights(bool per_channel) {
  return std::string("initializer w: int8[4,3,3,3] = random(1,-127,127)\n") +
         (per_channel ? "initializer ws: float32[4] = random(2,0.002,0.01)\ninitializer wz: int8[4] = zeros\n"
                      : scalar("ws", "float32", "0.01") + scalar("wz", "int8", "0")) +
         (per_channel ? "wd = DequantizeLinear(w, ws, wz) {axis=0}\n" : "wd = DequantizeLinear(w, ws, wz)\n");
}

// `operators` are left between QuantizeLinear and DequantizeLinear, and outputs stay within a quantum.
void check_codes(const std::string& text, const std::string& operators, double quantum = 0.05) {
  CAPTURE(text);
  auto model = parse_model(text);
  const auto before = model->clone();
  const PassRun run = run_pass("runtime_qoperator{level=runtime}", std::move(model));
  CHECK(run.outcome.changed);
  CHECK(operators_of(*run.after) == "QuantizeLinear " + operators + " DequantizeLinear");
  const std::vector<std::vector<Tensor>> probes{probe_inputs(*before, 3, {})};
  const ProbeOutputs expected = run_probes(*before, probes, true, 1), found = run_probes(*run.after, probes, true, 1);
  for (const OutputError& error : measure_errors(*run.after, expected, found)) CHECK(error.max_abs <= 1.01 * quantum);
  CHECK_FALSE(run_pass("runtime_qoperator{level=runtime}", run.after->clone()).outcome.changed);
}

TEST_CASE("Conv between codes becomes QLinearConv") {
  for (const bool per_channel : {false, true}) {
    const std::string base = around("2,3,6,6") + conv_weights(per_channel);
    check_codes(base + "t = Conv(xd, wd) {pads=[1,1,1,1], strides=[2,1]}\n" + end, "QLinearConv");
    // A bias in floats, in codes of the right unit (per tensor), and of another.
    check_codes(base + "initializer b: float32[4] = random(3)\nt = Conv(xd, wd, b)\n" + end, "QLinearConv");
    check_codes(base + "initializer b: int32[4] = random(3,-500,500)\n" + scalar("bs", "float32", "0.0002") +
                    "bd = DequantizeLinear(b, bs)\nt = Conv(xd, wd, bd)\n" + end, "QLinearConv");
    check_codes(base + "initializer b: int32[4] = random(3,-500,500)\n" + scalar("bs", "float32", "0.001") +
                    "bd = DequantizeLinear(b, bs)\nt = Conv(xd, wd, bd)\n" + end, "QLinearConv");
  }
  // The codes saturate where Relu and Clip do.
  const std::string base = around("2,3,6,6", "uint8", 120, 0) + conv_weights(true);
  check_codes(base + "c = Conv(xd, wd)\nt = Relu(c)\n" + end, "QLinearConv");
  check_codes(base + scalar("lo", "float32", "0") + scalar("hi", "float32", "20") + "c = Conv(xd, wd)\nt = Clip(c, lo, hi)\n" + end,
              "QLinearConv");
  const PassRun run = run_pass(step, base + scalar("lo", "float32", "0") + scalar("hi", "float32", "6") +
                                         "c = Conv(xd, wd)\nt = Clip(c, lo, hi)\n" + end);
  CHECK(run.reason("qlinear_conv").find("does away with") != std::string::npos);
  check_codes(around("2,3,6,6", "int8", 0, -3) + conv_weights(true) + "t = Conv(xd, wd)\n" + end, "QLinearConv");
}

TEST_CASE("an omitted zero point is zero") {
  check_codes(head + "input x: float32[1,3,6,6]\n" + scalar("xs", "float32", "0.02") + scalar("ys", "float32", "0.05") +
                  "initializer w: int8[4,3,3,3] = random(1,-127,127)\n" + scalar("ws", "float32", "0.01") +
                  "xq = QuantizeLinear(x, xs)\nxd = DequantizeLinear(xq, xs)\nwd = DequantizeLinear(w, ws)\n"
                  "t = Conv(xd, wd)\nyq = QuantizeLinear(t, ys)\ny = DequantizeLinear(yq, ys)\noutput y\n",
              "QLinearConv");
}

TEST_CASE("products between codes") {
  const std::string weights = "initializer w: int8[5,4] = random(1,-127,127)\ninitializer ws: float32[4] = random(2,0.002,0.01)\n"
                              "initializer wz: int8[4] = zeros\nwd = DequantizeLinear(w, ws, wz) {axis=1}\n";
  check_codes(around("3,5") + weights + "t = MatMul(xd, wd)\n" + end, "QLinearMatMul");
  check_codes(around("3,5") + weights + "initializer b: float32[4] = random(3)\nt = Gemm(xd, wd, b) {alpha=0.5}\n" + end,
              "com.microsoft.QGemm");
  check_codes(around("3,5") + "initializer w: int8[4,5] = random(1,-127,127)\n" + scalar("ws", "float32", "0.01") +
                  "wd = DequantizeLinear(w, ws)\nt = Gemm(xd, wd) {transB=1}\n" + end, "com.microsoft.QGemm");
  check_codes(around("2,5,5") + "t = MatMul(xd, xd)\n" + end, "QLinearMatMul");
  // Read as floats.
  const PassRun floats = run_pass(step, around("3,5") + weights + "y = MatMul(xd, wd)\noutput y\n");
  CHECK(operators_of(*floats.after) == "QuantizeLinear com.microsoft.MatMulIntegerToFloat");
  const PassRun gemm = run_pass(step, around("3,5") + weights + "initializer b: float32[4] = random(3)\n"
                                                                "y = Gemm(xd, wd, b)\noutput y\n");
  CHECK(operators_of(*gemm.after) == "QuantizeLinear com.microsoft.QGemm");
}

TEST_CASE("elementwise operators between codes") {
  for (const char* type : {"uint8", "int8"}) {
    const std::string base = around("2,3,4,4", type, 10, 5);
    check_codes(base + "t = Add(xd, xd)\n" + end, "com.microsoft.QLinearAdd");
    check_codes(base + "t = Mul(xd, xd)\n" + end, "com.microsoft.QLinearMul");
    check_codes(base + "t = Sigmoid(xd)\n" + end, "com.microsoft.QLinearSigmoid");
    check_codes(base + "t = LeakyRelu(xd) {alpha=0.2}\n" + end, "com.microsoft.QLinearLeakyRelu");
    check_codes(base + "t = Relu(xd)\n" + end, "com.microsoft.QLinearLeakyRelu");
    check_codes(base + "t = GlobalAveragePool(xd)\n" + end, "com.microsoft.QLinearGlobalAveragePool");
    check_codes(base + "t = AveragePool(xd) {kernel_shape=[2,2], pads=[1,0,0,1], count_include_pad=1}\n" + end,
                "com.microsoft.QLinearAveragePool");
    check_codes(base + "t = Concat(xd, xd) {axis=1}\n" + end, "com.microsoft.QLinearConcat");
  }
  check_miss(step, "qlinear_pool", around("2,3,5,5") + "t = AveragePool(xd) {kernel_shape=[2,2], strides=[2,2], ceil_mode=1}\n" + end,
             "QLinearAveragePool");
}

TEST_CASE("movements go onto the codes where both sides are quantized alike") {
  const std::string base = around("2,3,4,4", "uint8", 100, 100, "0.02");
  for (const char* text :
       {"t = MaxPool(xd) {kernel_shape=[2,2]}\n", "initializer s: int64[2] = {2,-1}\nt = Reshape(xd, s)\n", "t = Flatten(xd)\n",
        "t = Transpose(xd) {perm=[0,2,3,1]}\n", "initializer a: int64[1] = {0}\nt = Unsqueeze(xd, a)\n",
        "initializer i: int64[2] = {1,0}\nt = Gather(xd, i) {axis=1}\n", "t = Concat(xd, xd) {axis=1}\n",
        "initializer r: float32[4] = {1,1,2,2}\nt = Resize(xd, _, r) {mode=\"nearest\"}\n"}) {
    CAPTURE(text);
    const PassRun run = run_pass(step, base + text + end);
    CHECK(run.outcome.changed);
    CHECK(operators_of(*run.after).find("QuantizeLinear ") == 0);
    CHECK(run.after->graph.node_count() == 3);
    for (const OutputError& error : run.errors) CHECK(error.max_abs == 0);
  }
  check_miss(step, "qoperator_movement", around("2,3,4,4") + "t = Flatten(xd)\n" + end, "quantized differently");
  check_miss(step, "qoperator_movement",
             base + "initializer r: float32[4] = {1,1,2,2}\nt = Resize(xd, _, r) {mode=\"linear\"}\n" + end, "interpolates");
}

TEST_CASE("what has no operator on codes stays") {
  // Scales that are not constant; a result with another reader; softmax of int8, which wraps.
  check_miss(step, "qlinear_binary",
             head + "input x: float32[3]\ninput s: float32[]\n" + scalar("z", "uint8", "3") +
                 "xq = QuantizeLinear(x, s, z)\nxd = DequantizeLinear(xq, s, z)\nt = Add(xd, xd)\n"
                 "yq = QuantizeLinear(t, s, z)\ny = DequantizeLinear(yq, s, z)\noutput y\n",
             "not constant");
  check_unchanged(step, around("2,3", "int8", 0, 0) + "t = Softmax(xd)\n" + end);
  check_unchanged("runtime_qoperator", around("2,3") + "t = Add(xd, xd)\n" + end);
  const PassRun run = run_pass(step, around("2,3") + "t = Add(xd, xd)\n" + end + "output t\n");
  CHECK_FALSE(run.outcome.changed);
}

TEST_CASE("bodies of control flow are converted too") {
  const PassRun run = run_pass(step, around("2,3") + R"(input c: bool[]
y = If(c) {then_branch=graph {
  t = Add(xd, xd)
  tq = QuantizeLinear(t, ys, yz)
  td = DequantizeLinear(tq, ys, yz)
  output td: float32[2,3]
}, else_branch=graph {
  u = Neg(xd)
  output u: float32[2,3]
}}
output y
)");
  CHECK(run.outcome.counts["qlinear_binary"] == 1);
}

}  // namespace
}  // namespace onnxpress
