#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

constexpr const char* activations = "fuse_activations";
constexpr const char* at_runtime = "fuse_activations{level=runtime}";

std::string text(int opset, const std::string& body, const std::string& type = "float32") {
  const auto number = [&](const std::string& name, const std::string& value) {
    return "initializer " + name + ": " + type + "[] = {" + value + "}\n";
  };
  return "model ir=10 opset=" + std::to_string(opset) + "\ninput x: " + type + "[n,7]\n" +
         number("zero", "0") + number("one", "1") + number("three", "3") + number("six", "6") +
         number("sixth", "0.16666667") + number("half", "0.5") + number("tenth", "0.1") +
         number("k", "1.702") + body + "output y\n";
}

TEST_CASE("HardSwish in all orders") {
  const std::string gates[] = {
      "a = Add(x, three)\ng = Clip(a, zero, six)\n",
      "a = Add(three, x)\nb = Max(a, zero)\ng = Min(b, six)\n",
      "a = Add(x, three)\nb = Relu(a)\ng = Min(six, b)\n",
  };
  const std::string products[] = {
      "p = Mul(x, g)\ny = Div(p, six)\n", "p = Mul(g, x)\ny = Mul(sixth, p)\n",
      "p = Div(g, six)\ny = Mul(x, p)\n", "p = Mul(g, sixth)\ny = Mul(p, x)\n",
      "p = Div(x, six)\ny = Mul(p, g)\n",
  };
  for (const std::string& gate : gates)
    for (const std::string& product : products) {
      check_fused(activations, text(14, gate + product), "HardSwish");
      check_fused(activations, text(13, gate + product), "HardSigmoid Mul");
    }
  check_fused(activations,
              text(14, "g = HardSigmoid(x) {alpha=0.16666667, beta=0.5}\ny = Mul(x, g)\n"),
              "HardSwish");
  check_fused(activations,
              text(14,
                   "a = Mul(x, sixth)\nb = Add(a, half)\ng = Clip(b, zero, one)\n"
                   "y = Mul(g, x)\n"),
              "HardSwish");
}

TEST_CASE("HardSigmoid, with its own slope") {
  check_fused(activations, text(11, "a = Add(x, three)\ng = Clip(a, zero, six)\ny = Div(g, six)\n"),
              "HardSigmoid");
  const PassRun run = check_fused(
      activations, text(11, "a = Mul(x, tenth)\nb = Add(a, half)\ny = Clip(b, zero, one)\n"),
      "HardSigmoid");
  CHECK(to_text(*run.after).find("alpha=0.1, beta=0.5") != std::string::npos);
  // Bounds that are attributes.
  check_fused(activations,
              text(10,
                   "a = Add(x, three)\ng = Clip(a) {min=0.0, max=6.0}\n"
                   "y = Div(g, six)\n"),
              "HardSigmoid");
}

TEST_CASE("Swish and QuickGelu") {
  check_fused(activations, text(24, "g = Sigmoid(x)\ny = Mul(x, g)\n"), "Swish");
  check_fused(activations, text(24, "a = Mul(k, x)\ng = Sigmoid(a)\ny = Mul(g, x)\n"), "Swish");
  check_fused(at_runtime, text(13, "g = Sigmoid(x)\ny = Mul(g, x)\n"), "com.microsoft.QuickGelu");
  check_refused(activations, "fuse_swish", text(13, "g = Sigmoid(x)\ny = Mul(x, g)\n"),
                "Swish needs opset 24, the model has 13");
  check_refused(activations, "fuse_swish", text(25, "g = Sigmoid(x)\ny = Mul(x, g)\n"),
                "ONNX Runtime does not run Swish in models of opset 25");
}

TEST_CASE("Mish and Softplus") {
  check_fused(activations, text(18, "p = Softplus(x)\ng = Tanh(p)\ny = Mul(x, g)\n"), "Mish");
  check_fused(activations,
              text(18,
                   "e = Exp(x)\na = Add(e, one)\np = Log(a)\ng = Tanh(p)\n"
                   "y = Mul(g, x)\n"),
              "Mish");
  check_fused(activations, text(9, "e = Exp(x)\na = Add(one, e)\ny = Log(a)\n"), "Softplus");
  check_refused(activations, "fuse_mish", text(17, "p = Softplus(x)\ng = Tanh(p)\ny = Mul(x, g)\n"),
                "Mish needs opset 18");
}

TEST_CASE("Relu, LeakyRelu and Clip by Min and Max") {
  check_fused(activations, text(12, "y = Max(x, zero)\n"), "Relu");
  check_fused(activations, text(12, "y = Max(zero, x)\n"), "Relu");
  check_fused(activations, text(12, "y = Clip(x, zero)\n"), "Relu");
  check_fused(activations, text(10, "y = Clip(x) {min=0.0}\n"), "Relu");
  check_fused(activations, text(12, "a = Mul(x, tenth)\ny = Max(x, a)\n"), "LeakyRelu");
  check_fused(activations, text(12, "a = Mul(tenth, x)\ny = Max(a, x)\n"), "LeakyRelu");
  check_fused(activations, text(12, "a = Max(x, half)\ny = Min(a, three)\n"), "Clip");
  check_fused(activations, text(12, "a = Min(three, x)\ny = Max(half, a)\n"), "Clip");
  check_fused(activations, text(10, "a = Relu(x)\ny = Min(a, six)\n"), "Clip");
}

TEST_CASE("why activations are left alone") {
  const auto refused = [](const char* rule, const std::string& model, const std::string& reason) {
    check_refused(activations, rule, model, reason);
  };
  const std::string swish = "a = Add(x, three)\ng = Clip(a, zero, six)\np = Mul(x, g)\n";
  refused("fuse_hard_swish", text(14, swish + "y = Div(p, six)\noutput p\n"), "is a graph output");
  refused("fuse_hard_swish", text(14, swish + "y = Div(p, three)\n"), "");
  refused("fuse_hard_swish", text(14, swish + "y = Div(p, six)\n", "float64"), "float64");
  refused("fuse_relu", text(12, "y = Max(x, half)\n"), "");
  refused("fuse_relu",
          "model ir=8 opset=13\ninput x: int32[3]\ninitializer z: int32[] = {0}\n"
          "y = Max(x, z)\noutput y\n",
          "");
  refused("fuse_relu",
          "model ir=8 opset=13\ninput x: float32[3]\n"
          "initializer z: float32[1,1] = {0}\ny = Max(x, z)\noutput y\n",
          "");
  refused("fuse_leaky_relu", text(12, "a = Mul(x, three)\ny = Max(x, a)\n"), "");
  refused("fuse_leaky_relu", text(12, "a = Mul(x, tenth)\ny = Max(x, a)\noutput a\n"),
          "is a graph output");
  refused("fuse_clip", text(12, "a = Max(x, three)\ny = Min(a, half)\n"), "");
  refused("fuse_softplus", text(12, "e = Exp(x)\na = Add(e, one)\ny = Log(a)\noutput e\n"),
          "is a graph output");
  refused("fuse_softplus", text(12, "e = Exp(x)\na = Add(e, half)\ny = Log(a)\n"), "");
}

TEST_CASE("activations inside the body of an If") {
  const PassRun run =
      run_pass(activations, text(18,
                                 "input k2: bool[]\ny = If(k2) {then_branch=graph {\n"
                                 "  p = Softplus(x)\n  g = Tanh(p)\n  z = Mul(x, g)\n  output z\n"
                                 "}, else_branch=graph {\n  z = Max(x, zero)\n  output z\n}}\n"));
  CHECK(run.outcome.counts["fuse_mish"] == 1);
  CHECK(run.outcome.counts["fuse_relu"] == 1);
}

}  // namespace
}  // namespace onnxpress
