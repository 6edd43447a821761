#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

constexpr const char* gelu = "fuse_gelu";
constexpr const char* at_runtime = "fuse_gelu{level=runtime}";

std::string text(int opset, const std::string& body, const std::string& x = "float32[n,5]") {
  return "model ir=8 opset=" + std::to_string(opset) + "\ninput x: " + x +
         "\ninitializer root: float32[] = {1.4142135}\ninitializer inverse: float32[] = "
         "{0.70710677}\n"
         "initializer one: float32[] = {1}\ninitializer half: float32[] = {0.5}\n"
         "initializer two: float32[] = {2}\ninitializer three: float32[] = {3}\n"
         "initializer k: float32[] = {0.044715}\ninitializer f: float32[] = {0.7978845608}\n"
         "initializer kf: float32[] = {0.0356774081}\n" +
         body + "output y\n";
}

// (1 + g) x / 2 in all orders.
const std::string products[] = {
    "s = Add(g, one)\np = Mul(x, s)\ny = Mul(p, half)\n",
    "s = Add(one, g)\np = Mul(s, x)\ny = Mul(half, p)\n",
    "s = Add(g, one)\np = Mul(s, half)\ny = Mul(x, p)\n",
    "s = Add(g, one)\np = Mul(half, s)\ny = Mul(p, x)\n",
    "s = Add(g, one)\nh = Mul(x, half)\ny = Mul(h, s)\n",
    "s = Add(g, one)\nh = Mul(half, x)\ny = Mul(s, h)\n",
    "s = Add(g, one)\np = Mul(x, s)\ny = Div(p, two)\n",
    "s = Add(g, one)\nh = Div(x, two)\ny = Mul(h, s)\n",
};

TEST_CASE("Gelu by erf in all orders") {
  for (const char* inside : {"Div(x, root)", "Mul(x, inverse)", "Mul(inverse, x)"})
    for (const std::string& product : products) {
      const std::string body = "i = " + std::string(inside) + "\ng = Erf(i)\n" + product;
      check_fused(gelu, text(20, body), "Gelu");
      check_fused(at_runtime, text(13, body), "com.microsoft.Gelu");
    }
}

TEST_CASE("Gelu by tanh in all orders") {
  const std::string insides[] = {
      "c = Pow(x, three)\nd = Mul(k, c)\ne = Add(x, d)\ni = Mul(f, e)\n",
      "a = Mul(x, x)\nc = Mul(a, x)\nd = Mul(c, k)\ne = Add(d, x)\ni = Mul(e, f)\n",
      "a = Mul(x, x)\nb = Mul(a, k)\nc = Add(b, one)\nd = Mul(x, f)\ni = Mul(d, c)\n",
      "a = Pow(x, two)\nb = Mul(a, kf)\nc = Add(b, f)\ni = Mul(c, x)\n",
  };
  for (const std::string& inside : insides)
    for (const std::string& product : products) {
      const std::string body = inside + "g = Tanh(i)\n" + product;
      const PassRun run = check_fused(gelu, text(20, body), "Gelu");
      CHECK(to_text(*run.after).find("approximate=\"tanh\"") != std::string::npos);
      check_fused(at_runtime, text(13, body), "com.microsoft.FastGelu");
    }
}

TEST_CASE("ONNX Runtime's domain is imported where it is used only") {
  const std::string body = "i = Div(x, root)\ng = Erf(i)\n" + products[0];
  CHECK(run_pass(at_runtime, text(13, body)).after->opsets.at("com.microsoft") == 1);
  CHECK(run_pass(at_runtime, text(20, body)).after->opsets.count("com.microsoft") == 0);
  CHECK_FALSE(run_pass(at_runtime, text(13, "y = Erf(x)\n")).outcome.changed);
}

TEST_CASE("why Gelus are left alone") {
  const auto refused = [](const std::string& model, const std::string& reason) {
    check_refused(gelu, "fuse_gelu", model, reason);
  };
  const std::string body = "i = Div(x, root)\ng = Erf(i)\n" + products[0];
  refused(text(13, body), "Gelu needs opset 20, the model has 13");
  refused(text(20, body + "output g\n"), "is a graph output");
  refused(text(20, body + "z = Neg(s)\noutput z\n"), "has another reader");
  refused(text(20, body + "z = Neg(i)\noutput z\n"), "has another reader");
  refused(text(20, "i = Div(x, two)\ng = Erf(i)\n" + products[0]), "not those of Gelu");
  refused(
      text(20, "i = Div(x, root)\ng = Erf(i)\ns = Add(g, one)\np = Mul(x, s)\ny = Mul(p, two)\n"),
      "");
  refused(text(20,
               "z = Neg(x)\ni = Div(x, root)\ng = Erf(i)\ns = Add(g, one)\np = Mul(z, s)\n"
               "y = Mul(p, half)\n"),
          "");
  // Numbers that would give the result more axes.
  refused(
      "model ir=8 opset=20\ninput x: float32[5]\ninitializer root: float32[1,1] = {1.4142135}\n"
      "initializer one: float32[] = {1}\ninitializer half: float32[] = {0.5}\n" +
          body + "output y\n",
      "");
}

TEST_CASE("numbers as float16 holds them") {
  check_fused(
      gelu,
      "model ir=8 opset=20\ninput x: float16[7]\ninitializer root: float16[] = {1.4142135}\n"
      "initializer one: float16[] = {1}\ninitializer half: float16[] = {0.5}\n"
      "i = Div(x, root)\ng = Erf(i)\n" +
          products[0] + "output y\n",
      "Gelu");
}

}  // namespace
}  // namespace onnxpress
