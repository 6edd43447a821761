#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "fuse_reshaped_gemm";

std::string product(const std::string& target, const std::string& extra = "",
                    const std::string& x = "[n,2,6]", const std::string& b = "[4]") {
  return "model ir=8 opset=17\ninput x: float32" + x +
         "\ninitializer w: float32[3,4] = random(1)\n"
         "initializer b: float32" +
         b + " = random(2)\ninitializer s: int64[3] = {0,4,3}\ninitializer r: int64[" +
         std::to_string(std::count(target.begin(), target.end(), ',') + 1) + "] = {" + target +
         "}\n"
         "t = Reshape(x, s)\nu = MatMul(t, w)\nv = Add(u, b)\ny = Reshape(v, r)\noutput y\n" +
         extra;
}

TEST_CASE("MatMul and Add between reshapes are one Gemm between them") {
  check_rule(pass, "matmul_between_reshapes", product("-1,2,8"), 3);
  check_rule(pass, "matmul_between_reshapes", product("0,2,8"), 3);
  check_rule(pass, "matmul_between_reshapes", product("0,0,4"), 3);
  check_rule(pass, "matmul_between_reshapes", product("0,-1", "", "[5,2,6]", "[]"), 3);
  check_miss(pass, "matmul_between_reshapes", product("0,-1"),
             "more than one dim that is not known");
  check_miss(pass, "matmul_between_reshapes", product("-1,16", "output t\n"), "graph output");
  check_miss(pass, "matmul_between_reshapes", product("-1,16", "", "[n,2,6]", "[4,1]"),
             "the bias has shape [4,1]");
}

std::string cells(const std::string& tail, const std::string& attributes = "",
                  const std::string& x = "[n,3,1,1]", int opset = 17) {
  return "model ir=8 opset=" + std::to_string(opset) + "\ninput x: float32" + x +
         "\ninitializer w: float32[4,3,1,1] = random(1)\ninitializer b: float32[4] = random(2)\n"
         "initializer s: int64[2] = {0,4}\nt = Conv(x, w, b) {" +
         attributes + "}\ny = " + tail + "\noutput y\n";
}

TEST_CASE("convolutions of single cells, flattened") {
  check_rule(pass, "conv_of_cells_to_gemm", cells("Flatten(t)"), 2);
  check_rule(pass, "conv_of_cells_to_gemm", cells("Reshape(t, s)"), 2);
  check_rule(pass, "conv_of_cells_to_gemm", cells("Squeeze(t) {axes=[2,3]}", "", "[n,3,1,1]", 6),
             2);
  check_miss(pass, "conv_of_cells_to_gemm", cells("Flatten(t) {axis=2}"), "[batch, channels]");
  check_miss(pass, "conv_of_cells_to_gemm", cells("Flatten(t)", "", "[n,3,2,1]"), "single cells");
  check_miss(pass, "conv_of_cells_to_gemm", cells("Flatten(t)", "pads=[0,0,1,0]"), "padding");
  check_miss(
      pass, "conv_of_cells_to_gemm",
      "model ir=8 opset=10\ninput x: float32[1,3,1]\n"
      "initializer w: float32[4,3,1] = random(1)\nt = Conv(x, w)\ny = Flatten(t)\noutput y\n",
      "opset");
}

}  // namespace
}  // namespace onnxpress
