#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

constexpr const char* layer_norm = "fuse_layer_norm";
constexpr const char* at_runtime = "fuse_layer_norm{level=runtime}";

std::string head(const std::string& x = "float32[2,3,8]", int opset = 17) {
  return "model ir=8 opset=" + std::to_string(opset) + "\ninput x: " + x +
         "\ninitializer scale: float32[8] = random(1,0.5,2)\n"
         "initializer bias: float32[8] = random(2)\n"
         "initializer eps: float32[] = {0.00001}\ninitializer two: float32[] = {2}\n"
         "initializer one: float32[] = {1}\ninitializer half: float32[] = {0.5}\n"
         "initializer minus_half: float32[] = {-0.5}\n";
}

// Mean, difference and the squares' mean, over the axes that the attribute names.
std::string moments(const std::string& square = "Pow(c, two)", const std::string& axes = "[-1]") {
  return "m = ReduceMean(x) {axes=" + axes + "}\nc = Sub(x, m)\nq = " + square +
         "\nv = ReduceMean(q) {axes=" + axes + "}\n";
}

const std::string quotient = "a = Add(v, eps)\ns = Sqrt(a)\nn = Div(c, s)\n";
const std::string affine = "g = Mul(n, scale)\ny = Add(g, bias)\noutput y\n";

TEST_CASE("layer normalization in the exporters' spellings") {
  const std::string squares[] = {"Pow(c, two)", "Mul(c, c)"};
  const std::string sums[] = {"Add(v, eps)", "Add(eps, v)"};
  const std::string quotients[] = {
      "s = Sqrt(a)\nn = Div(c, s)\n",
      "s = Sqrt(a)\nr = Reciprocal(s)\nn = Mul(c, r)\n",
      "s = Sqrt(a)\nr = Reciprocal(s)\nn = Mul(r, c)\n",
      "s = Sqrt(a)\nr = Div(one, s)\nn = Mul(c, r)\n",
      "s = Pow(a, half)\nn = Div(c, s)\n",
      "s = Pow(a, half)\nr = Reciprocal(s)\nn = Mul(c, r)\n",
      "r = Pow(a, minus_half)\nn = Mul(r, c)\n",
  };
  const std::string affines[] = {"g = Mul(n, scale)\ny = Add(g, bias)\n",
                                 "g = Mul(scale, n)\ny = Add(bias, g)\n"};
  for (const auto& square : squares)
    for (const auto& sum : sums)
      for (const auto& last : quotients)
        for (const auto& parameters : affines)
          check_fused(
              layer_norm,
              head() + moments(square) + "a = " + sum + "\n" + last + parameters + "output y\n",
              "LayerNormalization");
}

TEST_CASE("a layer normalization keeps its epsilon, axis and names") {
  const PassRun run =
      check_fused(layer_norm, head() + moments() + quotient + affine, "LayerNormalization");
  CHECK(to_text(*run.after).find("LayerNormalization(x, scale, bias) {axis=-1, epsilon=1e-05}") !=
        std::string::npos);
  CHECK(run.outcome.counts["fuse_layer_norm"] == 1);
}

TEST_CASE("the mean subtracted twice, as old PyTorch exporters did") {
  check_fused(layer_norm,
              head() +
                  "m = ReduceMean(x) {axes=[-1]}\nc = Sub(x, m)\nd = Sub(x, m)\n"
                  "q = Pow(d, two)\nv = ReduceMean(q) {axes=[-1]}\n" +
                  quotient + affine,
              "LayerNormalization");
  check_fused(layer_norm,
              head() +
                  "m = ReduceMean(x) {axes=[-1]}\nk = ReduceMean(x) {axes=[2]}\n"
                  "c = Sub(x, m)\nd = Sub(x, k)\nq = Mul(d, d)\n"
                  "v = ReduceMean(q) {axes=[-1]}\n" +
                  quotient + affine,
              "LayerNormalization");
}

TEST_CASE("scale and bias may be absent, numbers, computed, or of higher rank") {
  check_fused(layer_norm, head() + moments() + quotient + "output n\n", "LayerNormalization");
  check_fused(layer_norm, head() + moments() + quotient + "y = Mul(n, scale)\noutput y\n",
              "LayerNormalization");
  check_fused(layer_norm, head() + moments() + quotient + "y = Add(n, bias)\noutput y\n",
              "LayerNormalization");
  check_fused(layer_norm, head() + moments() + quotient + "y = Mul(n, two)\noutput y\n",
              "LayerNormalization");
  check_fused(layer_norm,
              head() + "initializer w: float32[1,1,8] = random(4)\n" + moments() + quotient +
                  "y = Mul(n, w)\noutput y\n",
              "LayerNormalization");
  check_fused(layer_norm,
              head() + "input w: float32[8]\n" + moments() + quotient + "y = Mul(n, w)\noutput y\n",
              "LayerNormalization");
  // Not by element of a row: stays.
  check_fused(layer_norm,
              head("float32[2,2,3,8]") + "initializer w: float32[3,1] = random(4)\n" + moments() +
                  quotient + "y = Mul(n, w)\noutput y\n",
              "LayerNormalization Mul");
  check_fused(layer_norm, head() + moments() + quotient + "y = Mul(n, x)\noutput y\n",
              "LayerNormalization Mul");
  // A long row of ones is written as one value.
  const PassRun run = check_fused(
      layer_norm,
      "model ir=8 opset=17\ninput x: float32[3,400]\ninitializer eps: float32[] = {0.1}\n"
      "initializer two: float32[] = {2}\n" +
          moments() + quotient + "output n\n",
      "LayerNormalization");
  CHECK(parameter_count(*run.after) == 1);
}

TEST_CASE("several last axes, counted from either end, as attribute and as input") {
  const std::string parameters =
      "initializer w: float32[3,8] = random(1)\ninitializer b: float32[3,8] = random(2)\n";
  for (const char* axes : {"[1,2]", "[-2,-1]", "[-1,-2]"})
    check_fused(layer_norm,
                head() + parameters + moments("Mul(c, c)", axes) + quotient +
                    "g = Mul(n, w)\ny = Add(g, b)\noutput y\n",
                "LayerNormalization");
  check_fused(layer_norm,
              head("float32[2,3,8]", 18) +
                  "initializer axes: int64[1] = {-1}\nm = ReduceMean(x, axes)\nc = Sub(x, m)\n"
                  "q = Mul(c, c)\nv = ReduceMean(q, axes)\n" +
                  quotient + affine,
              "LayerNormalization");
}

TEST_CASE("symbolic dims, unknown ranks and other types") {
  check_fused(layer_norm, head("float32[batch,length,8]") + moments() + quotient + affine,
              "LayerNormalization");
  // Without a rank the last axis is still the last; its length is not known.
  check_fused(layer_norm, head("float32[a,b]") + moments() + quotient + "output n\n",
              "LayerNormalization");
  check_fused(layer_norm,
              head("float32[a,b]") + moments() + quotient + "y = Mul(n, scale)\noutput y\n",
              "LayerNormalization Mul");
  check_fused(layer_norm,
              "model ir=8 opset=17\ninput x: float64[2,8]\ninitializer eps: float64[] = {0.1}\n"
              "initializer two: float64[] = {2}\n" +
                  moments() + quotient + "output n\n",
              "LayerNormalization");
}

TEST_CASE("computed in float32 for float16") {
  check_fused(layer_norm,
              "model ir=8 opset=17\ninput h: float16[2,8]\ninitializer eps: float32[] = {0.1}\n"
              "initializer two: float32[] = {2}\n"
              "initializer w: float16[8] = random(1)\nx = Cast(h) {to=1}\n" +
                  moments() + quotient + "k = Cast(n) {to=10}\ny = Mul(k, w)\noutput y\n",
              "LayerNormalization");
}

TEST_CASE("level=runtime asks for the opset of the operator where there is one to write") {
  const std::string old = head("float32[6,8]", 13) + moments() + quotient + affine;
  check_refused(layer_norm, "fuse_layer_norm", old,
                "LayerNormalization needs opset 17, the model has 13");
  const auto wanted = [](const char* step, const std::string& text) {
    const Pipeline pipeline = Pipeline::parse(step);
    return pipeline.steps[0].pass->required_opset(*parse_model(text), pipeline.steps[0].options);
  };
  CHECK(wanted(at_runtime, old) == 17);
  CHECK(wanted(layer_norm, old) == 0);
  CHECK(wanted(at_runtime, head() + moments() + quotient + affine) == 0);
  CHECK(wanted(at_runtime, head("float32[6,8]", 13) + "y = Neg(x)\noutput y\n") == 0);
}

TEST_CASE("why layer normalizations are left alone") {
  const auto refused = [](const std::string& text, const std::string& reason) {
    check_refused(layer_norm, "fuse_layer_norm", text, reason);
  };
  refused(head() + moments("Pow(c, two)", "[1]") + quotient + affine, "other than the last axes");
  refused(head() + moments() + quotient + affine + "output s\n", "'s' (output of ");
  refused(head() + moments() + quotient + affine + "z = Neg(c)\noutput z\n", "has another reader");
  refused(head() +
              "m = ReduceMean(x) {axes=[-1]}\nc = Sub(x, m)\nq = Mul(c, c)\n"
              "v = ReduceMean(q) {axes=[1]}\n" +
              quotient + affine,
          "not over the same axes");
  refused(head("float32[2,3,8]", 18) +
              "input axes: int64[1]\nm = ReduceMean(x, axes)\nc = Sub(x, m)\nq = Mul(c, c)\n"
              "v = ReduceMean(q, axes)\n" +
              quotient + "output n: float32[2,3,8]\n",
          "the axes of ");
  // No epsilon of one number, a cube, a sum of squares: not even near.
  refused(head() + moments() + "a = Add(v, scale)\ns = Sqrt(a)\nn = Div(c, s)\n" + affine, "");
  refused(head() + "initializer three: float32[] = {3}\n" + moments("Pow(c, three)") +
              "b = Abs(v)\na = Add(b, eps)\ns = Sqrt(a)\nn = Div(c, s)\n" + affine,
          "");
}

TEST_CASE("inside the body of an If, and with captured values") {
  const PassRun run =
      run_pass(layer_norm, head() +
                               "input k: bool[]\n"
                               "z = If(k) {then_branch=graph {\n" +
                               moments() + quotient + affine +
                               "}, else_branch=graph {\n  y = Neg(x)\n  output y\n}}\n"
                               "output z: float32[2,3,8]\n");
  CHECK(run.outcome.counts["fuse_layer_norm"] == 1);
  CHECK(to_text(*run.after).find("ReduceMean") == std::string::npos);
}

TEST_CASE("instance normalization has scale and bias by channel") {
  const std::string image =
      "model ir=8 opset=13\ninput x: float32[2,3,4,5]\ninitializer eps: float32[] = {0.001}\n"
      "initializer two: float32[] = {2}\ninitializer w: float32[3,1,1] = random(1)\n"
      "initializer b: float32[1,3,1,1] = random(2)\n" +
      moments("Mul(c, c)", "[2,3]") + quotient;
  const PassRun run = check_fused(layer_norm, image + "g = Mul(n, w)\ny = Add(g, b)\noutput y\n",
                                  "InstanceNormalization");
  CHECK(run.outcome.counts["fuse_instance_norm"] == 1);
  check_fused(layer_norm, image + "output n\n", "InstanceNormalization");
  // At a higher opset the operator that takes more of the nodes in.
  const std::string newer = "model ir=8 opset=17" + image.substr(image.find('\n'));
  check_fused(layer_norm, newer + "g = Mul(n, w)\ny = Add(g, b)\noutput y\n",
              "InstanceNormalization");
  check_fused(layer_norm, newer + "output n\n", "LayerNormalization");
}

TEST_CASE("instance normalization without parameters and with many channels stays") {
  const std::string text =
      "model ir=8 opset=13\ninput x: float32[1,64,5]\ninitializer eps: float32[] = {0.001}\n" +
      moments("Mul(c, c)", "[2]") + quotient + "output n\n";
  check_refused(layer_norm, "fuse_instance_norm", text, "made up for many channels");
}

}  // namespace
}  // namespace onnxpress
