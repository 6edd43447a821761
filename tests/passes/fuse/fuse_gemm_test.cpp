#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "fuse_gemm";

std::string model(const std::string& nodes, const std::string& x = "[n,3]",
                  const std::string& b = "[4]", int opset = 17,
                  const std::string& type = "float32") {
  return "model ir=8 opset=" + std::to_string(opset) + "\ninput x: " + type + x +
         "\ninput b: " + type + b + "\ninitializer w: " + type + "[3,4] = random(1)\n" + nodes +
         "output y\n";
}

TEST_CASE("MatMul and the sum behind it") {
  for (const std::string b : {"[4]", "[1,4]", "[n,4]", "[]", "[1]", "[n,1]"}) {
    check_rule(pass, "matmul_add_to_gemm", model("t = MatMul(x, w)\ny = Add(t, b)\n", "[n,3]", b),
               1);
    check_rule(pass, "matmul_add_to_gemm", model("t = MatMul(x, w)\ny = Add(b, t)\n", "[n,3]", b),
               1);
  }
  check_rule(pass, "matmul_add_to_gemm",
             model("t = MatMul(x, w)\ny = Add(t, b)\n", "[2,3]", "[2,4]", 9, "float64"), 1);
}

TEST_CASE("text in, text out, also in the form of opset 6") {
  check_pass(pass, R"(model ir=3 opset=6
input x: float32[2,3]
initializer w: float32[3,4] = random(1)
initializer b: float32[4] = random(2)
t = MatMul(x, w) "fc"
y = Add(t, b) {axis=1, broadcast=1} "sum"
output y: float32[2,4]
)",
             R"(model ir=3 opset=6
input x: float32[2,3]
initializer w: float32[3,4] = random(1)
initializer b: float32[4] = random(2)
y = Gemm(x, w, b) {broadcast=1} "fc"
output y: float32[2,4]
)");
}

TEST_CASE("sums that stay") {
  const std::string nodes = "t = MatMul(x, w)\ny = Add(t, b)\n";
  check_miss(pass, "matmul_add_to_gemm", model(nodes, "[2,n,3]"), "'x' has rank 3");
  check_miss(pass, "matmul_add_to_gemm", model(nodes, "[1,3]", "[2,4]"), "not known to broadcast");
  check_miss(pass, "matmul_add_to_gemm", model(nodes, "[n,3]", "[m,4]"), "not known to broadcast");
  check_miss(pass, "matmul_add_to_gemm", model(nodes, "[n,3]", "[1,1,4]"),
             "rank 3, expected at most 2");
  check_miss(pass, "matmul_add_to_gemm", model(nodes, "[n,3]", "[4]", 17, "int32"), "int32");
  check_miss(pass, "matmul_add_to_gemm", model(nodes + "output t\n"), "graph output");
}

TEST_CASE("a quantized weight stays with MatMul") {
  check_miss(pass, "matmul_add_to_gemm", R"(model ir=8 opset=17
input x: float32[2,3]
initializer q: int8[3,4] = random(1)
initializer s: float32[] = {0.5}
initializer b: float32[4] = random(2)
w = DequantizeLinear(q, s)
t = MatMul(x, w)
y = Add(t, b)
output y
)",
             "is quantized");
}

TEST_CASE("a sum of two products of the same matrix stays: they may cancel") {
  check_miss(pass, "matmul_add_to_gemm",
             model("t = MatMul(x, w)\nu = MatMul(x, w)\nv = Neg(u)\ny = Add(v, t)\n", "[2,3]"),
             "cancel it exactly");
}

TEST_CASE("a sum behind a Gemm without C") {
  check_rule(pass, "add_to_gemm",
             model("t = Gemm(x, w) {alpha=2.0, beta=3.0}\ny = Add(b, t)\n", "[n,3]", "[n,4]"), 1);
  check_miss(pass, "add_to_gemm", model("t = Gemm(x, w, b)\ny = Add(b, t)\n"), "has a bias");
  check_miss(pass, "add_to_gemm", model("t = Gemm(x, w)\ny = Add(b, t)\n", "[n,3]", "[m,4]"),
             "not known to broadcast");
}

TEST_CASE("transposes in front of products of matrices") {
  const auto text = [](const std::string& op, bool first, const std::string& perm, int opset = 17) {
    return model("t = Transpose(" + std::string(first ? "x" : "b") + ") {perm=" + perm +
                     "}\ny = " + op + (first ? "(t, w)" : "(x, t)") + "\n",
                 first ? "[3,n]" : "[n,3]", "[4,3]", opset);
  };
  for (const std::string op : {"Gemm", "MatMul"})
    for (const bool first : {true, false}) {
      check_rule(pass, "transpose_into_gemm", text(op, first, "[1,0]"), 1);
    }
  check_miss(pass, "transpose_into_gemm", text("MatMul", true, "[1,0]", 10), "opset");
  check_miss(pass, "transpose_into_gemm",
             model("t = Transpose(x) {perm=[0,2,1]}\ny = MatMul(t, w)\n", "[2,3,n]"), "rank 3");
  check_miss(pass, "transpose_into_gemm",
             model("t = Transpose(x)\nz = Relu(t)\ny = MatMul(t, w)\noutput z\n", "[3,n]"),
             "reader");
  check_rule(pass, "transpose_into_gemm",
             model("t = Transpose(x)\ny = Gemm(t, w, b) {transA=1, alpha=0.5}\n", "[n,3]"), 1);
}

TEST_CASE("the same transpose in front of both operands") {
  check_rule(pass, "transpose_into_gemm",
             "model ir=8 opset=17\ninput x: float32[3,3]\nt = Transpose(x)\n"
             "y = MatMul(t, t)\noutput y\n",
             1);
}

TEST_CASE("alpha and beta go into constants") {
  check_pass(pass, R"(model ir=8 opset=17
input x: float32[2,1]
initializer w: float32[1,2] = {1,2}
initializer b: float32[2] = {3,4}
y = Gemm(x, w, b) {alpha=0.5, beta=2.0} "fc"
output y: float32[2,2]
)",
             R"(model ir=8 opset=17
input x: float32[2,1]
initializer w: float32[1,2] = {0.5,1}
initializer b: float32[2] = {6,8}
y = Gemm(x, w, b) "fc"
output y: float32[2,2]
)");
  check_miss(pass, "fold_gemm_factors", model("y = Gemm(x, w, b) {beta=0.5}\n"), "beta: 'b'");
  check_miss(pass, "fold_gemm_factors",
             model("y = Gemm(x, w, b) {alpha=0.5}\nz = Neg(w)\noutput z\n"), "alpha: 'w'");
  check_miss(pass, "fold_gemm_factors", model("y = Gemm(x, w, b) {alpha=1e-37}\n"),
             "is too small for float32");
}

TEST_CASE("inside a function, where types are not known, nothing changes") {
  const PassRun run = run_pass(pass, R"(model ir=8 opset=17 local=1
input x: float32[2,3]
initializer w: float32[3,4] = random(1)
initializer b: float32[4] = random(2)
y = local.Dense(x, w, b)
output y: float32[2,4]
function local.Dense() opset=17 {
  input x
  input w
  input b
  t = MatMul(x, w)
  y = Add(t, b)
  output y
}
)");
  CHECK_FALSE(run.outcome.changed);
}

}  // namespace
}  // namespace onnxpress
