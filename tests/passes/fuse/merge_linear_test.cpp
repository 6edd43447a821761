#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "merge_linear";

// Weights [3,8] and [8,4] (or transposed): 24 + 32 values against 12.
std::string dense(const std::string& nodes, const std::string& x = "[2,5,3]",
                  bool transposed = false) {
  return "model ir=8 opset=17\ninput x: float32" + x + "\ninitializer a: float32" +
         (transposed ? "[8,3]" : "[3,8]") +
         " = random(1)\ninitializer p: float32[8] = random(2)\ninitializer b: float32" +
         (transposed ? "[4,8]" : "[8,4]") +
         " = random(3)\ninitializer q: float32[4] = random(4)\n" + nodes + "output y\n";
}

TEST_CASE("products of any rank, with a bias of the first or without") {
  for (const std::string x : {"[3]", "[n,3]", "[2,5,3]"}) {
    check_rule(pass, "merge_linear", dense("t = MatMul(x, a)\ny = MatMul(t, b)\n", x), 1);
    check_rule(pass, "merge_linear",
               dense("t = MatMul(x, a)\nu = Add(p, t)\ny = MatMul(u, b)\n", x), 2);
    check_rule(pass, "merge_linear",
               dense("t = MatMul(x, a)\nu = Add(t, p)\nv = MatMul(u, b)\ny = Add(v, q)\n", x), 3);
  }
  for (const bool transposed : {false, true}) {
    const std::string first = transposed ? "{transB=1, alpha=0.5, beta=2.0}" : "{alpha=0.5}";
    const std::string second = transposed ? "{transB=1, beta=0.5}" : "{alpha=3.0}";
    for (const std::string p : {", p", ""})
      for (const std::string q : {", q", ""})
        check_rule(
            pass, "merge_linear",
            dense("t = Gemm(x, a" + p + ") " + first + "\ny = Gemm(t, b" + q + ") " + second + "\n",
                  "[n,3]", transposed),
            1);
  }
  check_rule(pass, "merge_linear", dense("t = Gemm(x, a, p)\ny = MatMul(t, b)\n", "[n,3]"), 2);
  check_rule(pass, "merge_linear", dense("t = MatMul(x, a)\ny = Gemm(t, b, q)\n", "[n,3]"), 1);
}

TEST_CASE("text in, text out") {
  check_pass(pass, R"(model ir=8 opset=17
input x: float32[1,1]
initializer a: float32[1,2] = {1,2}
initializer p: float32[2] = {1,1}
initializer b: float32[2,1] = {3,4}
initializer q: float32[1] = {5}
t = Gemm(x, a, p) "first"
y = Gemm(t, b, q) "second"
output y: float32[1,1]
)",
             R"(model ir=8 opset=17
input x: float32[1,1]
initializer b: float32[1,1] = {11}
initializer q: float32[1] = {12}
y = Gemm(x, b, q) "second"
output y: float32[1,1]
)");
}

TEST_CASE("products that stay") {
  const std::string wide =
      "model ir=8 opset=17\ninput x: float32[5,8]\ninitializer a: float32[8,2] = random(1)\n"
      "initializer b: float32[2,8] = random(2)\nt = MatMul(x, a)\ny = MatMul(t, b)\noutput y\n";
  check_miss(pass, "merge_linear", wide, "would have 64 values, the two have 32");
  check_miss(pass, "merge_linear", dense("t = MatMul(x, a)\ny = MatMul(t, b)\noutput t\n"),
             "graph output");
  check_miss(pass, "merge_linear",
             dense("t = MatMul(x, a)\ny = MatMul(t, b)\nz = MatMul(x, a)\noutput z\n"),
             "weight 'a' has another reader");
  check_miss(pass, "merge_linear", dense("t = Gemm(x, a) {transA=1}\ny = MatMul(t, b)\n", "[3,n]"),
             "transposes");
  check_miss(
      pass, "merge_linear",
      dense("t = MatMul(x, a)\nu = Add(t, r)\ny = MatMul(u, b)\n", "[3]")
          .replace(0, 20, "model ir=8 opset=17\ninitializer r: float32[6,1,8] = random(9)\n"),
      "bias of the first");
}

std::string conv(const std::string& first, const std::string& second, const std::string& a,
                 const std::string& b, bool bias = true) {
  return "model ir=8 opset=17\ninput x: float32[1,2,6,6]\ninitializer a: float32" + a +
         " = random(1)\ninitializer p: float32[8] = random(2)\ninitializer b: float32" + b +
         " = random(3)\ninitializer q: float32[3] = random(4)\nt = Conv(x, a" +
         (bias ? ", p" : "") + ") " + first + "\ny = Conv(t, b, q) " + second + "\noutput y\n";
}

TEST_CASE("convolutions of which one is pointwise") {
  for (const bool bias : {true, false}) {
    check_rule(pass, "merge_linear", conv("", "", "[8,2,1,1]", "[3,8,1,1]", bias), 1);
    check_rule(pass, "merge_linear",
               conv("{pads=[1,1,1,1], strides=[2,2]}", "", "[8,2,3,3]", "[3,8,1,1]", bias), 1);
    check_rule(pass, "merge_linear", conv("", "{strides=[2,2]}", "[8,2,1,1]", "[3,8,3,3]", bias),
               1);
  }
  check_rule(pass, "merge_linear", conv("", "{pads=[1,1,1,1]}", "[8,2,1,1]", "[3,8,3,3]", false),
             1);
  check_rule(
      pass, "merge_linear",
      "model ir=8 opset=17\ninput x: float32[1,2,5]\ninitializer a: float32[2,2,1] = random(1)\n"
      "initializer b: float32[1,2,1] = random(2)\nt: float32[1,2,5] = Conv(x, a)\n"
      "y = Conv(t, b)\noutput y: float32[1,1,5]\n",
      1);  // the type of the first is declared, with other channels
  check_miss(pass, "merge_linear", conv("", "{pads=[1,1,1,1]}", "[8,2,1,1]", "[3,8,3,3]"),
             "pads behind the bias");
  check_miss(pass, "merge_linear", conv("", "", "[8,2,3,3]", "[3,8,3,3]"), "neither convolution");
  check_miss(pass, "merge_linear", conv("{group=2}", "", "[8,1,3,3]", "[3,8,1,1]"), "groups");
}

TEST_CASE("types that the file declares of the value between do not hinder") {
  check_rule(pass, "merge_linear", R"(model ir=8 opset=17
input x: float32[2,2,5]
initializer a: float32[8,2,1] = random(1)
initializer b: float32[4,8,1] = random(2)
t: float32[2,8,5] = Conv(x, a)
y = Conv(t, b)
output y: float32[2,4,5]
)",
             1);
}

TEST_CASE("weights whose product would vanish stay two") {
  const std::string text =
      "model ir=8 opset=17\ninput x: float32[2,4]\n"
      "initializer a: float32[4,4] = random(1,1e-26,1e-25)\n"
      "initializer b: float32[4,4] = random(2,1e-26,1e-25)\nt = MatMul(x, a)\ny = MatMul(t, b)\n"
      "output y\n";
  check_miss("merge_linear", "merge_linear", text, "is too small for float32");
}

}  // namespace
}  // namespace onnxpress
