#include <fmt/format.h>

#include "tests/graph/ops/gradient_cases.h"

namespace onnxpress {

std::vector<GradientCase> unary_gradient_cases() {
  std::vector<GradientCase> cases;
  const auto add = [&](const std::string& call, std::int64_t opset = 17, double low = -2,
                       double high = 2) {
    cases.push_back({.body = "initializer x: float64[3,5] = random(1)\ny = " + call + "\n",
                     .opset = opset,
                     .low = low,
                     .high = high});
  };
  for (const char* op : {"Relu", "Abs", "Neg", "Sign", "Sigmoid", "Softplus", "Softsign", "HardSwish",
                         "Tanh", "Erf", "Exp", "Floor", "Ceil", "Round", "Sin", "Cos", "Atan",
                         "Sinh", "Cosh", "Asinh", "Elu", "Celu", "Selu", "LeakyRelu", "HardSigmoid",
                         "ThresholdedRelu", "Shrink", "Identity", "Dropout"})
    add(fmt::format("{}(x)", op));
  for (const char* op : {"Reciprocal", "Log", "Sqrt"}) add(fmt::format("{}(x)", op), 17, 0.3, 2);
  for (const char* op : {"Tan", "Asin", "Acos", "Atanh"}) add(fmt::format("{}(x)", op), 17, -0.9, 0.9);
  add("Acosh(x)", 17, 1.2, 3);
  add("Mish(x)", 18);
  add("Gelu(x)", 20);
  add("Gelu(x) {approximate=\"tanh\"}", 20);
  add("Swish(x) {alpha=1.5}", 24);
  add("com.microsoft.QuickGelu(x)");
  add("com.microsoft.Gelu(x)");
  add("Elu(x) {alpha=0.5}");
  add("Celu(x) {alpha=0.5}");
  add("Selu(x) {alpha=1.5, gamma=0.7}");
  add("LeakyRelu(x) {alpha=0.3}");
  add("HardSigmoid(x) {alpha=0.4, beta=0.3}");
  add("Shrink(x) {lambd=0.7, bias=0.2}");
  add("Softmax(x)");
  add("Softmax(x) {axis=0}");
  add("Softmax(x)", 11);
  add("LogSoftmax(x)");
  add("LogSoftmax(x) {axis=0}", 12);
  return cases;
}

std::vector<GradientCase> arithmetic_gradient_cases() {
  std::vector<GradientCase> cases;
  const auto add = [&](const std::string& body, std::int64_t opset = 17, double low = -1,
                       double high = 1) {
    cases.push_back({.body = body, .opset = opset, .low = low, .high = high});
  };
  const auto two = [](const std::string& a, const std::string& b, const std::string& call) {
    return fmt::format(
        "initializer a: float64[{}] = random(1)\ninitializer b: float64[{}] = random(2)\n"
        "y = {}\n",
        a, b, call);
  };
  const std::pair<const char*, const char*> shapes[] = {
      {"2,3,4", "2,3,4"}, {"2,3,4", "4"}, {"2,1,4", "3,1"}, {"3", "2,2,3"}, {"2,3,4", ""}, {"2,3,4", "2,1,4"}};
  for (const auto& [a, b] : shapes)
    for (const char* op : {"Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"})
      add(two(a, b, fmt::format("{}(a, b)", op)));
  for (const auto& [a, b] : shapes) {
    add(two(a, b, "Div(a, b)"), 17, 0.5, 2);
    add(two(a, b, "Pow(a, b)"), 17, 0.5, 2);
  }
  add(two("2,3", "3", "Mod(a, b) {fmod=1}"), 17, 0.5, 2);
  add(two("2,3,4", "3", "Add(a, b) {broadcast=1, axis=1}"), 6);
  add(two("2,3,4", "3", "Mul(a, b) {broadcast=1, axis=1}"), 6);
  add(two("2,3,4", "3,1", "PRelu(a, b)"));
  add(two("2,3,4", "3", "PRelu(a, b)"), 6);
  add("initializer a: float64[3,4] = random(1)\ninitializer e: int64[4] = {0,1,2,3}\ny = Pow(a, e)\n");
  add("initializer a: float64[2,3] = random(1)\ninitializer b: float64[3] = random(2)\n"
      "initializer c: float64[2,1] = random(3)\ny = Max(a, b, c)\n");
  add("initializer a: float64[2,3] = random(1)\ninitializer b: float64[3] = random(2)\n"
      "initializer c: float64[2,1] = random(3)\ny = Mean(a, b, c)\n");
  add("initializer x: float64[4,5] = random(1)\ny = Clip(x) {min=-0.5, max=0.5}\n", 10);
  add("initializer x: float64[4,5] = random(1)\ninitializer low: float64[] = {-0.3}\n"
      "initializer high: float64[] = {0.4}\ny = Clip(x, low, high)\n");
  add("initializer x: float64[4,5] = random(1)\ny = Clip(x)\n");
  add("initializer c: bool[2,1,4] = {1,0,0,1,1,1,0,0}\ninitializer a: float64[3,4] = random(1)\n"
      "initializer b: float64[1] = random(2)\ny = Where(c, a, b)\n");
  add(two("2,3", "3,4", "MatMul(a, b)"));
  add(two("2,5,2,3", "5,3,4", "MatMul(a, b)"));
  add(two("5,2,3", "3,4", "MatMul(a, b)"));
  add(two("2,3", "4,3,2", "MatMul(a, b)"));
  add(two("3", "3,4", "MatMul(a, b)"));
  add(two("2,3", "3", "MatMul(a, b)"));
  add(two("3", "3", "MatMul(a, b)"));
  for (const char* c : {"4", "2,4", "1", "2,1", ""})
    for (const char* attributes :
         {"", "{alpha=0.5, beta=2.0}", "{transA=1}", "{transB=1}", "{transA=1, transB=1, alpha=2.0}"}) {
      const std::string text = attributes;
      const bool a = text.find("transA") != std::string::npos;
      const bool b = text.find("transB") != std::string::npos;
      add(fmt::format("initializer a: float64[{}] = random(1)\ninitializer b: float64[{}] = "
                      "random(2)\ninitializer c: float64[{}] = random(3)\ny = Gemm(a, b, c) {}\n",
                      a ? "3,2" : "2,3", b ? "4,3" : "3,4", c, text));
    }
  add(two("2,3", "3,4", "Gemm(a, b)"));
  return cases;
}

}  // namespace onnxpress
