#include "tests/passes/fuse/rule_checks.h"

namespace onnxpress {
namespace {

constexpr const char* pass = "merge_affine";

std::string chain(const std::string& nodes, const std::string& a = "[]",
                  const std::string& b = "[4]", const std::string& type = "float32") {
  return "model ir=8 opset=17\ninput x: " + type + "[2,n,4]\ninitializer a: " + type + a +
         " = random(1,0.5,2)\ninitializer b: " + type + b +
         " = random(2,0.5,2)\ninitializer c: " + type + "[4] = random(3,0.5,2)\n" + nodes +
         "output y\n";
}

TEST_CASE("two scales are one, and so are two shifts") {
  for (const std::string first : {"Mul(x, a)", "Mul(a, x)", "Div(x, a)"})
    for (const std::string second : {"Mul(t, b)", "Mul(b, t)", "Div(t, b)"}) {
      const PassRun run =
          check_rule(pass, "merge_scales", chain("t = " + first + "\ny = " + second + "\n"), 1);
      CHECK(run.after->graph.nodes()[0]->is("Mul"));
    }
  for (const std::string first : {"Add(x, a)", "Add(a, x)", "Sub(x, a)", "Sub(a, x)"})
    for (const std::string second : {"Add(t, b)", "Add(b, t)", "Sub(t, b)", "Sub(b, t)"}) {
      check_rule(pass, "merge_shifts", chain("t = " + first + "\ny = " + second + "\n"), 1);
      check_rule(pass, "merge_shifts",
                 chain("t = " + first + "\ny = " + second + "\n", "[]", "[]", "float64"), 1);
    }
}

TEST_CASE("text in, text out") {
  check_pass(pass, R"(model ir=8 opset=17
input x: float32[2]
initializer a: float32[2] = {2,4}
initializer b: float32[] = {3}
initializer c: float32[] = {2}
t = Mul(x, a) "first"
u = Sub(t, b) "second"
y = Div(u, c) "third"
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
initializer a_1: float32[2] = {1,2}
initializer c_1: float32[] = {-1.5}
first = Mul(x, a_1) "first"
y = Add(first, c_1) "third"
output y: float32[2]
)");
}

TEST_CASE("alternating scales and shifts are one of each") {
  for (const std::string first : {"Mul(x, a)", "Div(x, a)"})
    for (const std::string second : {"Add(b, t)", "Sub(t, b)", "Sub(b, t)"})
      check_rule(pass, "merge_scales_and_shifts",
                 chain("t = " + first + "\nu = " + second + "\ny = Mul(u, c)\n"), 2);
  for (const std::string first : {"Add(x, a)", "Sub(a, x)"})
    for (const std::string last : {"Add(c, u)", "Sub(u, c)", "Sub(c, u)"})
      check_rule(pass, "merge_scales_and_shifts",
                 chain("t = " + first + "\nu = Mul(t, b)\ny = " + last + "\n"), 2);
  check_rule(pass, "merge_scales_and_shifts",
             chain("t = Add(x, a)\nu = Mul(t, b)\nv = Add(u, c)\nw = Div(v, a)\ny = Sub(b, w)\n"),
             2);
}

TEST_CASE("chains that stay") {
  check_miss(pass, "merge_scales", chain("t = Mul(x, a)\ny = Mul(t, b)\n", "[2,1,1]", "[4]"),
             "would grow");
  check_miss(pass, "merge_scales", chain("t = Mul(x, a)\ny = Mul(t, b)\noutput t\n"),
             "graph output");
  check_miss(pass, "merge_scales", chain("t = Mul(x, a)\ny = Div(b, t)\n"), "divides a constant");
  check_miss(pass, "merge_scales", chain("t = Mul(x, a)\ny = Mul(t, b)\n", "[]", "[4]", "float16"),
             "float16");
  const auto shifts = [](const std::string& a) {
    return "model ir=8 opset=17\ninput x: float32[3]\ninitializer a: float32[] = {" + a +
           "}\nt = Add(x, a)\ny = Sub(t, a)\noutput y\n";
  };
  check_miss(pass, "merge_shifts", shifts("12582912"), "so large that adding them rounds");
  check_rule(pass, "merge_shifts", shifts("100"), 1);
  check_miss(pass, "merge_scales",
             "model ir=8 opset=17\ninput x: float32[3]\ninitializer a: float32[] = {1e30}\n"
             "t = Mul(x, a)\ny = Mul(t, a)\noutput y\n",
             "not finite");
  check_miss(pass, "merge_scales",
             "model ir=8 opset=17\ninput x: float32[3]\ninitializer a: float32[] = {0.5}\n"
             "s = Sigmoid(x)\nt = Mul(x, s)\nu = Mul(t, a)\ny = Mul(u, a)\noutput y\n",
             "activation");
}

TEST_CASE("constants that others read stay for them") {
  const PassRun run = check_rule(pass, "merge_scales",
                                 chain("t = Mul(x, a)\ny = Mul(t, a)\nz = Neg(a)\noutput z\n"), 2);
  CHECK(run.after->graph.find("a") != nullptr);
}

std::string norm(const std::string& nodes, const std::string& operand) {
  return "model ir=8 opset=17\ninput x: float32[2,3,5]\ninitializer gamma: float32[3] = "
         "random(11,0.5,2)\n"
         "initializer beta: float32[3] = random(12)\ninitializer mean: float32[3] = random(13)\n"
         "initializer var: float32[3] = random(14,0.5,2)\ninitializer c: float32" +
         operand + " = random(3,0.5,2)\n" + nodes + "output y\n";
}

TEST_CASE("scales and shifts around BatchNormalization go into it") {
  for (const std::string op : {"Mul", "Div", "Add", "Sub"})
    for (const std::string operand : {"[3,1]", "[]"}) {
      check_rule(pass, "merge_into_batch_norm",
                 norm("t = BatchNormalization(x, gamma, beta, mean, var)\ny = " + op + "(t, c)\n",
                      operand),
                 1);
      check_rule(pass, "merge_into_batch_norm",
                 norm("t = " + op + "(x, c)\ny = BatchNormalization(t, gamma, beta, mean, var)\n",
                      operand),
                 1);
    }
  check_rule(pass, "merge_into_batch_norm",
             norm("t = BatchNormalization(x, gamma, beta, mean, var)\nu = Sub(c, t)\n"
                  "y = BatchNormalization(u, gamma, beta, mean, var)\n",
                  "[1,3,1]"),
             1);
  check_miss(pass, "merge_into_batch_norm",
             norm("t = BatchNormalization(x, gamma, beta, mean, var)\ny = Mul(t, c)\n", "[5]"),
             "'c' has shape [5]");
  check_miss(pass, "merge_into_batch_norm",
             "model ir=8 opset=17\ninput x: float32[1,1]\ninitializer c: float32[1,3] = random(1)\n"
             "initializer g: float32[3] = random(2,0.5,2)\nt = Mul(x, c)\n"
             "y = BatchNormalization(t, g, g, g, g)\noutput y\n",
             "not known to have 3 channels");
}

TEST_CASE("constants whose product or sum says less than the two stay") {
  const auto model = [](const std::string& a, const std::string& b, const std::string& nodes) {
    return "model ir=8 opset=17\ninput x: float32[4]\ninitializer a: float32[] = {" + a +
           "}\ninitializer b: float32[] = {" + b + "}\n" + nodes + "\noutput y\n";
  };
  const std::string scales = "merge_scales", shifts = "merge_shifts";
  check_miss(pass, scales, model("1e-25", "1e-25", "t = Mul(x, a)\ny = Mul(b, t)"), "too small");
  check_miss(pass, scales, model("1e25", "1e25", "t = Div(x, a)\ny = Div(t, b)"), "too small");
  check_miss(pass, scales, model("1e25", "1e-20", "t = Div(x, a)\ny = Mul(t, b)"), "too small");
  check_rule(pass, scales, model("1e-25", "1e20", "t = Mul(x, a)\ny = Mul(t, b)"), 1);
  check_rule(pass, scales, model("1e-25", "0", "t = Mul(x, a)\ny = Mul(t, b)"), 1);

  check_miss(pass, shifts, model("-1e6", "0.123", "t = Add(x, a)\ny = Add(t, b)"), "would round");
  check_miss(pass, shifts, model("0.123", "3000", "t = Add(x, a)\ny = Sub(b, t)"), "would round");
  check_rule(pass, shifts, model("-1e6", "0.125", "t = Add(x, a)\ny = Add(t, b)"), 1);
  check_rule(pass, shifts, model("-3", "0.123", "t = Add(x, a)\ny = Add(t, b)"), 1);
  check_miss(pass, "merge_scales_and_shifts",
             model("-1e6", "0.123", "t = Add(x, a)\nu = Mul(t, b)\ny = Add(u, b)"), "would round");
}

TEST_CASE("a shift far beyond what BatchNormalization gives stays in front of it") {
  const auto model = [](const std::string& shift) {
    return "model ir=8 opset=17\ninput x: float32[2,3,4]\ninitializer c: float32[] = {" + shift +
           "}\ninitializer s: float32[3] = random(1,0.5,2)\ninitializer b: float32[3] = random(2)\n"
           "initializer m: float32[3] = random(3)\ninitializer v: float32[3] = random(4,0.5,2)\n"
           "t = Add(x, c)\ny = BatchNormalization(t, s, b, m, v)\noutput y\n";
  };
  check_miss(pass, "merge_into_batch_norm", model("-1e5"), "'c' is so much larger than results");
  check_rule(pass, "merge_into_batch_norm", model("-100"), 1);
}

}  // namespace
}  // namespace onnxpress
