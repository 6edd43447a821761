#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "merge_parallel";

std::string model(const std::string& nodes, const std::string& x = "[2,n,3]", int opset = 17,
                  const std::string& type = "float32") {
  std::string text = "model ir=8 opset=" + std::to_string(opset) + "\ninput x: " + type + x + "\n";
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i), columns = std::to_string(4 + i);
    text += "initializer w" + n + ": " + type + "[3," + columns + "] = random(" + n + ")\n";
    text += "initializer b" + n + ": " + type + "[" + columns + "] = random(1" + n + ")\n";
  }
  return text + nodes;
}

constexpr const char* three = "q = MatMul(x, w0)\nk = MatMul(x, w1)\nv = MatMul(x, w2)\n";
constexpr const char* outputs = "output q\noutput k\noutput v\n";

TEST_CASE("three products, or two with their biases, are one and a Split") {
  for (const int opset : {9, 11, 13, 18})
    check_rule(pass, "merge_parallel", model(std::string(three) + outputs, "[2,n,3]", opset), 2);
  check_rule(pass, "merge_parallel", model(std::string(three) + outputs, "[3]", 17, "float16"), 2);
  const PassRun run =
      check_rule(pass, "merge_parallel",
                 model("q = MatMul(x, w0) \"query\"\nqb = Add(q, b0)\nk = MatMul(x, w1)\n"
                       "kb = Add(b1, k)\ny = Neg(qb)\noutput y\noutput kb\n"),
                 4);
  CHECK(run.after->graph.nodes()[0]->name == "query");
}

TEST_CASE("text in, text out") {
  check_pass(pass, R"(model ir=8 opset=17
input x: float32[2,1]
initializer a: float32[1,2] = {1,2}
initializer b: float32[1,1] = {3}
initializer c: float32[1,1] = {4}
p = MatMul(x, a) "one"
q = MatMul(x, b) "two"
r = MatMul(x, c) "three"
output p: float32[2,2]
output q: float32[2,1]
output r: float32[2,1]
)",
             R"(model ir=8 opset=17
input x: float32[2,1]
initializer a_1: float32[1,4] = {1,2,3,4}
initializer a_sizes: int64[3] = {2,1,1}
one = MatMul(x, a_1) "one"
p, q, r = Split(one, a_sizes) {axis=1} "one_split"
output p: float32[2,2]
output q: float32[2,1]
output r: float32[2,1]
)");
}

TEST_CASE("Gemms of equal form") {
  const std::string gemms = "q = Gemm(x, w0, b0) {alpha=0.5}\nk = Gemm(x, w1, b1) {alpha=0.5}\n";
  check_rule(pass, "merge_parallel",
             model(gemms + "v = Gemm(x, w2, b2) {alpha=0.5}\n" + outputs, "[n,3]"), 2);
  check_miss(pass, "merge_parallel", model(gemms + "v = Gemm(x, w2, b2)\n" + outputs, "[n,3]"),
             "2 of its kind");
  check_miss(pass, "merge_parallel",
             model(gemms + "v = Gemm(x, w2) {alpha=0.5}\n" + outputs, "[n,3]"), "2 of its kind");
  check_rule(pass, "merge_parallel",
             "model ir=8 opset=17\ninput x: float32[n,3]\ninitializer a: float32[2,3] = random(1)\n"
             "initializer b: float32[4,3] = random(2)\ninitializer c: float32[1,3] = random(3)\n"
             "q = Gemm(x, a) {transB=1}\nk = Gemm(x, b) {transB=1}\nv = Gemm(x, c) {transB=1}\n" +
                 std::string(outputs),
             2);
}

TEST_CASE("what stays") {
  check_miss(pass, "merge_parallel",
             model("q = MatMul(x, w0)\nk = MatMul(x, w1)\noutput q\noutput k\n"), "2 of its kind");
  check_miss(
      pass, "merge_parallel",
      model("q = MatMul(x, w0)\nk = MatMul(x, w0)\nv = MatMul(x, w2)\n" + std::string(outputs)),
      "shared");
  check_miss(pass, "merge_parallel",
             model("q = MatMul(x, w0)\nqb = Add(q, b0)\nk = MatMul(x, w1)\n"
                   "v = MatMul(x, w2)\noutput qb\noutput k\noutput v\n"),
             "2 of its kind");
}

TEST_CASE("only within one graph") {
  check_miss(pass, "merge_parallel", model(R"(q = MatMul(x, w0)
k = MatMul(x, w1)
c = Constant() {value=bool[]{1}}
v = If(c) {then_branch=graph {
  t = MatMul(x, w2)
  output t
}, else_branch=graph {
  t = Neg(w2)
  s = MatMul(x, t)
  output s
}}
output q
output k
output v: float32[2,n,6]
)"),
             "2 of its kind");
}

}  // namespace
}  // namespace onnxpress
