#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "fold_affine";
constexpr const char* previous = "fold_into_previous";
constexpr const char* next = "fold_into_next";

std::string conv(const std::string& tail, const std::string& operand, bool bias = true) {
  return "model ir=8 opset=17\ninput x: float32[2,3,5,5]\n"
         "initializer w: float32[4,3,3,3] = random(1)\ninitializer b: float32[4] = random(2)\n"
         "initializer c: float32" +
         operand + " = random(3,0.5,2)\nt = Conv(x, w" + (bias ? ", b" : "") +
         ") {pads=[1,1,1,1]} \"conv\"\ny = " + tail + "\noutput y\n";
}

TEST_CASE("scales and shifts behind a convolution, of any form that goes by channel") {
  for (const std::string tail : {"Mul(t, c)", "Mul(c, t)", "Div(t, c)", "Add(t, c)", "Add(c, t)",
                                 "Sub(t, c)", "Sub(c, t)"}) {
    for (const std::string operand : {"[4,1,1]", "[1,4,1,1]", "[]", "[1]", "[1,1,1,1]", "[1,1]"})
      check_rule(pass, previous, conv(tail, operand), 1);
    check_rule(pass, previous, conv(tail, "[4,1,1]", false), 1);
  }
}

TEST_CASE("text in, text out") {
  check_pass(pass, R"(model ir=8 opset=17
input x: float32[1,1,2]
initializer w: float32[2,1,1] = {1,2}
initializer b: float32[2] = {1,1}
initializer s: float32[2,1] = {2,4}
initializer t: float32[1,2,1] = {10,20}
u = Conv(x, w, b) "conv"
v = Div(u, s) "scale"
y = Sub(t, v) "shift"
output y: float32[1,2,2]
)",
             R"(model ir=8 opset=17
input x: float32[1,1,2]
initializer w: float32[2,1,1] = {-0.5,-0.5}
initializer b: float32[2] = {9.5,19.75}
y = Conv(x, w, b) "conv"
output y: float32[1,2,2]
)");
}

TEST_CASE("a single channel") {
  for (const std::string tail : {"Mul(t, c)", "Add(t, c)", "Sub(c, t)"})
    check_rule(pass, previous,
               "model ir=8 opset=17\ninput x: float32[2,3,8]\n"
               "initializer w: float32[1,3,3] = random(1)\ninitializer b: float32[1] = random(2)\n"
               "initializer c: float32[1,1] = random(3)\nt = Conv(x, w, b) "
               "{auto_pad=\"SAME_UPPER\"}\ny = " +
                   tail + "\noutput y\n",
               1);
}

TEST_CASE("operands that do not go by channel stay") {
  check_miss(pass, previous, conv("Mul(t, c)", "[5]"), "'c' has shape [5]");
  check_miss(pass, previous, conv("Add(t, c)", "[1,4,5,5]"), "one value or one per channel");
  check_miss(pass, previous, conv("Add(t, c)", "[1,1,1,1,1]"), "'c' has shape [1,1,1,1,1]");
  check_miss(pass, previous, conv("Div(c, t)", "[4,1,1]"), "divides a constant");
}

TEST_CASE("a division by zero and a product that overflows stay") {
  const std::string start = "model ir=8 opset=17\ninput x: float32[1,2,2]\n";
  check_miss(pass, previous,
             start +
                 "initializer w: float32[1,2,1] = {1,2}\n"
                 "initializer c: float32[] = {0}\nt = Conv(x, w)\ny = Div(t, c)\noutput y\n",
             "zero or not finite");
  const PassRun run = run_pass(pass, start +
                                         "initializer w: float32[1,2,1] = {1e30,2}\n"
                                         "initializer c: float32[] = {1e30}\nt = Conv(x, w)\n"
                                         "y = Mul(t, c)\noutput y\n");
  CHECK_FALSE(run.outcome.changed);
}

TEST_CASE("a shift for which the bias would be larger than what goes stays") {
  const auto text = [](int channels) {
    const std::string n = std::to_string(channels);
    return "model ir=8 opset=17\ninput x: float32[1,3,2]\ninitializer w: float32[" + n +
           ",3,1] = random(1)\ninitializer c: float32[] = {3}\nt = Conv(x, w)\n"
           "y = Add(t, c)\noutput y\n";
  };
  check_rule(pass, previous, text(4), 1);
  check_miss(pass, previous, text(400), "would grow the file");
}

TEST_CASE("weights that others read are not scaled, but their bias is shifted") {
  const std::string start =
      "model ir=8 opset=17\ninput x: float32[1,3,2]\n"
      "initializer w: float32[4,3,1] = random(1)\n"
      "initializer c: float32[4,1] = random(3)\nt = Conv(x, w)\n"
      "z = Conv(x, w)\n";
  check_miss(pass, previous, start + "y = Mul(t, c)\noutput y\noutput z\n",
             "weight 'w' has another reader");
  check_rule(pass, previous, start + "y = Add(t, c)\noutput y\noutput z\n", 2);
}

TEST_CASE("results that others read, and biases that are not constant, stay") {
  check_miss(pass, previous, conv("Mul(t, c)\nz = Relu(t)\noutput z", "[4,1,1]"), "reader");
  check_miss(pass, previous, conv("Mul(t, c)\noutput t", "[4,1,1]"), "is a graph output");
  check_miss(pass, previous,
             "model ir=8 opset=17\ninput x: float32[1,3,2]\ninput b: float32[4]\n"
             "initializer w: float32[4,3,1] = random(1)\ninitializer c: float32[4,1] = random(3)\n"
             "t = Conv(x, w, b)\ny = Mul(t, c)\noutput y\n",
             "its bias 'b' is not a constant");
  check_miss(pass, previous,
             "model ir=8 opset=17\ninput x: float16[1,3,2]\n"
             "initializer w: float16[4,3,1] = random(1)\ninitializer c: float16[4,1] = random(3)\n"
             "t = Conv(x, w)\ny = Mul(t, c)\noutput y\n",
             "weight 'w' is float16");
}

TEST_CASE("products: Gemm with its factors, MatMul of any rank, with a bias behind it") {
  for (const std::string attributes : {"", "{transB=1}", "{alpha=0.5, beta=2.0}"}) {
    const std::string w = attributes == "{transB=1}" ? "[4,3]" : "[3,4]";
    for (const std::string operand : {"[4]", "[1,4]", "[]"})
      for (const std::string tail : {"Mul(t, c)", "Add(c, t)", "Sub(c, t)", "Div(t, c)"})
        check_rule(pass, previous,
                   "model ir=8 opset=17\ninput x: float32[5,3]\n"
                   "initializer w: float32" +
                       w +
                       " = random(1)\ninitializer b: float32[4] = random(2)\n"
                       "initializer c: float32" +
                       operand +
                       " = random(3,0.5,2)\n"
                       "t = Gemm(x, w, b) " +
                       attributes + "\ny = " + tail + "\noutput y\n",
                   1);
  }
  const auto product = [](const std::string& x, const std::string& b, const std::string& c) {
    return "model ir=8 opset=17\ninput x: float32" + x +
           "\ninitializer w: float32[3,4] = random(1)\ninitializer b: float32" + b +
           " = random(2)\ninitializer c: float32" + c + " = random(3,0.5,2)\n";
  };
  for (const std::string x : {"[3]", "[5,3]", "[2,n,3]"}) {
    check_rule(pass, previous,
               product(x, "[1]", "[4]") + "t = MatMul(x, w)\ny = Mul(t, c)\noutput y\n", 1);
    for (const std::string b : {"[4]", "[]", "[2,1,1,4]"})
      check_rule(
          pass, previous,
          product(x, b, "[4]") + "t = MatMul(x, w)\nu = Add(b, t)\ny = Div(u, c)\noutput y\n", 2);
  }
  check_miss(pass, previous,
             product("[5,3]", "[1]", "[1,1,4]") + "t = MatMul(x, w)\ny = Mul(t, c)\noutput y\n",
             "'c' has shape [1,1,4]");
  check_miss(pass, previous,
             product("[4,3]", "[4,1]", "[4]") +
                 "t = MatMul(x, w)\nu = Add(t, b)\ny = Mul(u, c)\noutput y\n",
             "its bias 'b' has shape [4,1]");
}

TEST_CASE("a scale in front of a linear operator, a shift where nothing is padded") {
  const auto text = [](const std::string& affine, const std::string& operand, const std::string& op,
                       const std::string& w, const std::string& x) {
    return "model ir=8 opset=17\ninput x: float32" + x + "\ninitializer w: float32" + w +
           " = random(1)\ninitializer c: float32" + operand + " = random(3,0.5,2)\nt = " + affine +
           "\ny = " + op + "\noutput y\n";
  };
  for (const std::string affine : {"Mul(x, c)", "Mul(c, x)", "Div(x, c)"}) {
    check_rule(pass, next,
               text(affine, "[4,1,1]", "Conv(t, w) {pads=[1,1,1,1]}", "[2,4,3,3]", "[1,4,5,5]"), 1);
    check_rule(pass, next, text(affine, "[4,1]", "Conv(t, w) {group=2}", "[6,2,3]", "[1,4,5]"), 1);
    check_rule(pass, next,
               text(affine, "[1,4,1]", "ConvTranspose(t, w) {group=2}", "[4,3,3]", "[1,4,5]"), 1);
    check_rule(pass, next, text(affine, "[4]", "MatMul(t, w)", "[4,3]", "[2,5,4]"), 1);
    check_rule(pass, next, text(affine, "[]", "Gemm(t, w) {transB=1}", "[3,4]", "[5,4]"), 1);
    check_rule(pass, next, text(affine, "[4,1]", "Gemm(t, w) {transA=1}", "[4,3]", "[4,5]"), 1);
  }
  for (const std::string affine : {"Add(x, c)", "Sub(x, c)", "Sub(c, x)"}) {
    check_rule(pass, next, text(affine, "[4,1,1]", "Conv(t, w)", "[2,4,3,3]", "[1,4,5,5]"), 1);
    check_rule(pass, next, text(affine, "[4,1]", "Conv(t, w) {group=2}", "[6,2,3]", "[1,4,5]"), 1);
    check_rule(pass, next, text(affine, "[4]", "Gemm(t, w) {alpha=0.5}", "[4,3]", "[5,4]"), 1);
    check_rule(pass, next, text(affine, "[4,1]", "Gemm(t, w) {transA=1}", "[4,3]", "[4,5]"), 1);
    check_miss(pass, next,
               text(affine, "[4,1,1]", "Conv(t, w) {pads=[1,1,1,1]}", "[2,4,3,3]", "[1,4,5,5]"),
               "pads behind the shift");
    check_miss(
        pass, next,
        text(affine, "[4,1,1]", "Conv(t, w) {auto_pad=\"SAME_UPPER\"}", "[2,4,3,3]", "[1,4,5,5]"),
        "pads behind the shift");
    check_miss(pass, next, text(affine, "[4,1]", "ConvTranspose(t, w)", "[4,3,3]", "[1,4,5]"),
               "border");
    check_miss(pass, next, text(affine, "[4]", "MatMul(t, w)", "[4,3]", "[5,4]"), "no bias");
  }
  check_miss(pass, next, text("Mul(x, c)", "[4,1,1]", "Conv(t, w)", "[2,4,3,3]", "[1,1,5,5]"),
             "not known to have 4 channels");
  check_miss(pass, next, text("Mul(x, c)", "[1,4,1,1]", "Conv(t, w)", "[2,4,3,3]", "[4,5,5]"),
             "rank 3");
  check_miss(pass, next, text("Mul(x, c)", "[5]", "Conv(t, w)", "[2,4,3,3]", "[1,4,5,5]"),
             "'c' has shape [5]");
}

TEST_CASE("BatchNormalization in front of a convolution") {
  const std::string text =
      "model ir=8 opset=17\ninput x: float32[2,3,5,5]\n"
      "initializer w: float32[4,3,3,3] = random(1)\ninitializer b: float32[4] = random(2)\n"
      "initializer gamma: float32[3] = random(11,0.5,2)\ninitializer beta: float32[3] = "
      "random(12)\n"
      "initializer mean: float32[3] = random(13)\ninitializer var: float32[3] = random(14,0.5,2)\n"
      "t = BatchNormalization(x, gamma, beta, mean, var)\n";
  check_rule(pass, next, text + "y = Conv(t, w, b)\noutput y\n", 1);
  check_miss(pass, next, text + "y = Conv(t, w, b) {pads=[1,1,1,1]}\noutput y\n", "pads");
}

TEST_CASE("the last factor of an activation stays with it") {
  check_miss(pass, next, R"(model ir=8 opset=17
input x: float32[2,4]
initializer r: float32[] = {1.4142135}
initializer one: float32[] = {1}
initializer half: float32[] = {0.5}
initializer w: float32[4,3] = random(1)
a = Div(x, r)
b = Erf(a)
c = Add(b, one)
d = Mul(x, c)
e = Mul(d, half)
y = MatMul(e, w)
output y
)",
             "activation");
}

TEST_CASE("one number passes through what moves elements") {
  const auto text = [](const std::string& nodes, const std::string& c = "[]") {
    return "model ir=8 opset=17\ninput x: float32[2,n,3]\ninitializer w: float32[3,4] = random(1)\n"
           "initializer b: float32[4] = random(2)\ninitializer c: float32" +
           c +
           " = random(3,0.5,2)\n"
           "initializer s: int64[4] = {0,0,2,2}\n" +
           nodes + "output y\n";
  };
  const std::string moves = "v = Reshape(u, s)\nz = Transpose(v) {perm=[0,2,1,3]}\n";
  const std::string rule = "fold_scale_through_moves";
  check_rule(pass, rule, text("t = MatMul(x, w)\nu = Add(t, b)\n" + moves + "y = Div(z, c)\n"), 4);
  check_rule(pass, rule, text("u = MatMul(x, w)\n" + moves + "y = Mul(c, z)\n", "[1,1]"), 3);
  check_rule(pass, rule, text("u = MatMul(x, w)\nv = Transpose(u)\ny = Mul(v, c)\n"), 2);
  check_miss(pass, rule, text("u = MatMul(x, w)\n" + moves + "y = Mul(c, z)\n", "[2]"),
             "has 2 values");
  check_miss(pass, rule, text("u = MatMul(x, w)\n" + moves + "y = Mul(c, z)\n", "[1,1,1,1,1]"),
             "shape [1,1,1,1,1]");
  check_miss(pass, rule, text("u = MatMul(x, w)\n" + moves + "y = Mul(c, z)\noutput v\n"),
             "graph output");
}

TEST_CASE("operands that older opsets align by axis") {
  const std::string start =
      "model ir=3 opset=6\ninput x: float32[1,3,4,4]\n"
      "initializer w: float32[4,3,1,1] = random(1)\n"
      "initializer c: float32[4] = random(3,0.5,2)\nt = Conv(x, w)\n";
  check_rule(pass, previous, start + "y = Mul(t, c) {broadcast=1, axis=1}\noutput y\n", 1);
  check_rule(pass, previous, start + "y = Add(t, c) {broadcast=1, axis=1}\noutput y\n", 1);
  check_miss(pass, previous, start + "y = Mul(t, c) {broadcast=1}\noutput y\n", "shape [4]");
}

TEST_CASE("inside the body of an If, with constants of the graph around it") {
  const PassRun run = run_pass(pass, R"(model ir=8 opset=17
input x: float32[1,3,4,4]
input c: bool[]
initializer w: float32[2,3,1,1] = random(1)
initializer v: float32[2,3,1,1] = random(2)
initializer s: float32[2,1,1] = random(3)
z = If(c) {then_branch=graph {
  t = Conv(x, w)
  y = Mul(t, s)
  output y
}, else_branch=graph {
  t = Conv(x, v)
  y = Add(t, s)
  output y
}}
output z: float32[1,2,4,4]
)");
  CHECK(run.outcome.counts[previous] == 2);
}

TEST_CASE("weights that a scale would make vanish stay") {
  const auto model = [](const std::string& constant, const std::string& nodes) {
    return "model ir=8 opset=17\ninput x: float32[2,4]\n"
           "initializer w: float32[4,4] = random(1,1e-26,1e-25)\n"
           "initializer zero: float32[4,4] = random(1,0,0)\n"
           "initializer c: float32[] = {" +
           constant + "}\n" + nodes + "\noutput y\n";
  };
  for (const std::string nodes : {"t = MatMul(x, w)\ny = Mul(t, c)", "t = Gemm(x, w)\ny = Mul(t, c)"})
    check_miss(pass, previous, model("1e-25", nodes), "is too small for float32");
  check_miss(pass, next, model("1e-25", "t = Mul(x, c)\ny = MatMul(t, w)"), "too small");
  check_miss(pass, next, model("1e25", "t = Div(x, c)\ny = Gemm(t, w)"), "too small");
  check_miss(pass, previous, model("1e38", "t = MatMul(x, w)\ny = Div(t, c)"), "too small");
  // Zero is what is meant where a factor is zero, and nothing is lost of other numbers.
  check_rule(pass, previous, model("0", "t = MatMul(x, w)\ny = Mul(t, c)"), 1);
  check_rule(pass, previous, model("1e-25", "t = MatMul(x, zero)\ny = Mul(t, c)"), 1);
  check_rule(pass, previous, model("1e-4", "t = MatMul(x, w)\ny = Mul(t, c)"), 1);
}

TEST_CASE("a shift that rounds what it is added to stays") {
  const std::string head =
      "model ir=8 opset=17\ninput x: float32[2,4]\ninitializer w: float32[4,4] = random(1)\n"
      "initializer b: float32[4] = random(2)\ninitializer c: float32[] = {12582912}\n";
  check_miss(pass, previous, head + "t = Gemm(x, w, b)\nu = Add(t, c)\ny = Sub(u, c)\noutput y\n",
             "'c' has values so large that adding them rounds");
  check_miss(pass, next, head + "t = Add(x, c)\ny = Gemm(t, w, b)\noutput y\n", "rounds");
}

TEST_CASE("a weight with several readers is scaled where all of them are, alike") {
  const auto model = [](const std::string& first, const std::string& second,
                        const std::string& more = "") {
    return "model ir=8 opset=17\ninput x: float32[2,3,5,5]\ninput y: float32[1,3,7,7]\n"
           "initializer w: float32[4,3,3,3] = random(1)\ninitializer b: float32[4] = random(2)\n"
           "initializer c: float32[4,1,1] = random(3,0.5,2)\n"
           "initializer d: float32[4,1,1] = random(4,0.5,2)\n"
           "t = Conv(x, w" +
           first + "u = Conv(y, w" + second + more + "output v\noutput z\n";
  };
  const std::string reason = "weight 'w' has another reader";
  for (const std::string op : {"Mul", "Div"}) {
    const std::string first = ", b) {pads=[1,1,1,1]}\nv = " + op + "(t, c)\n";
    const std::string same = op + "(u, c)";
    const PassRun run =
        check_rule(pass, previous, model(first, ", b) {strides=[2,2]}\nz = " + same + "\n"), 2);
    CHECK(run.after->graph.nodes()[0]->input(2) == run.after->graph.nodes()[1]->input(2));
    check_miss(pass, previous, model(first, ")\nz = " + same + "\n"), reason);
    check_miss(pass, previous, model(first, ", b)\nz = Mul(u, d)\n"), reason);
    check_miss(pass, previous, model(first, ", b)\nz = Relu(u)\n"), reason);
    check_miss(pass, previous, model(first, ", b)\nz = " + same + "\n", "q = Neg(u)\noutput q\n"),
               reason);
    check_miss(pass, previous, model(first, ", b)\nz = " + same + "\n", "q = Neg(w)\noutput q\n"),
               reason);
    check_miss(pass, previous, model(first, ", b)\nz = " + same + "\n", "output w\n"), reason);
  }
  // Also by a scale of -1; and products have no bias.
  check_rule(pass, previous, model(", b)\nv = Sub(c, t)\n", ", b)\nz = Sub(c, u)\n"), 2);
  check_rule(pass, previous,
             "model ir=8 opset=17\ninput x: float32[2,3]\ninput y: float32[4,3]\n"
             "initializer w: float32[3,5] = random(1)\ninitializer c: float32[5] = random(2)\n"
             "t = MatMul(x, w)\nv = Mul(t, c)\nu = MatMul(y, w)\nz = Mul(c, u)\noutput v\n"
             "output z\n",
             2);
}

}  // namespace
}  // namespace onnxpress
