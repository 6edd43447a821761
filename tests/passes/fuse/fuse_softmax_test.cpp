#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

std::string text(int opset, const std::string& axis, const std::string& body) {
  const std::string head =
      "model ir=8 opset=" + std::to_string(opset) + "\ninput x: float32[n,3,4]\n";
  if (opset >= 13)
    return head + "initializer axes: int64[1] = {" + axis + "}\nm = ReduceMax(x) {axes=[" + axis +
           "]}\n" + body + "output y\n";
  return head + "m = ReduceMax(x) {axes=[" + axis + "]}\n" + body + "output y\n";
}

const std::string shifted = "z = Sub(x, m)\ne = Exp(z)\n";

TEST_CASE("Softmax written out") {
  const char* step = "fuse_softmax";
  for (const char* axis : {"-1", "2", "1"}) {
    check_fused(step, text(13, axis, shifted + "s = ReduceSum(e, axes)\ny = Div(e, s)\n"),
                "Softmax");
    check_fused(step, text(13, axis, "e = Exp(x)\ns = ReduceSum(e, axes)\ny = Div(e, s)\n"),
                "ReduceMax Softmax");
    check_fused(step,
                text(13, axis, shifted + "s = ReduceSum(e, axes)\nl = Log(s)\ny = Sub(z, l)\n"),
                "LogSoftmax");
  }
  check_fused(step, text(11, "2", shifted + "s = ReduceSum(e) {axes=[-1]}\ny = Div(e, s)\n"),
              "Softmax");
  check_fused(step, text(11, "2", "r = ReduceLogSumExp(x) {axes=[2]}\ny = Sub(x, r)\n"),
              "ReduceMax LogSoftmax");
  // A maximum along another axis is only a shift.
  check_fused(step,
              text(13, "1",
                   "initializer last: int64[1] = {2}\n" + shifted +
                       "s = ReduceSum(e, last)\ny = Div(e, s)\n"),
              "ReduceMax Sub Softmax");

  check_refused(step, "fuse_softmax",
                text(11, "1", shifted + "s = ReduceSum(e) {axes=[1]}\ny = Div(e, s)\n"),
                "needs opset 13");
  check_refused(step, "fuse_softmax",
                text(13, "1", shifted + "s = ReduceSum(e, axes)\ny = Div(e, s)\noutput s\n"),
                "is a graph output");
  check_refused(step, "fuse_softmax",
                text(13, "0", shifted + "s = ReduceSum(e, axes) {keepdims=0}\ny = Div(e, s)\n"),
                "does not reduce one known axis");
}

TEST_CASE("vectors of length one") {
  const char* step = "fuse_lp_norm";
  const auto model = [](const std::string& body) {
    return "model ir=8 opset=13\ninput x: float32[n,3,4]\ninitializer tiny: float32[] = {1e-12}\n"
           "initializer small: float32[] = {0.001}\ninitializer two: float32[] = {2}\n"
           "initializer axes: int64[1] = {1}\n" +
           body + "output y\n";
  };
  const std::string one = "LpNormalization";
  check_fused(step, model("r = ReduceL2(x) {axes=[1]}\nc = Clip(r, tiny)\ny = Div(x, c)\n"), one);
  check_fused(step, model("r = ReduceL2(x) {axes=[-1]}\nc = Max(tiny, r)\ny = Div(x, c)\n"), one);
  check_fused(step, model("r = ReduceL2(x) {axes=[-1]}\nc = Add(r, tiny)\ny = Div(x, c)\n"), one);
  check_fused(step,
              model("r = ReduceL2(x) {axes=[1]}\nc = Clip(r, tiny)\nd = Shape(x)\n"
                    "e = Expand(c, d)\ny = Div(x, e)\n"),
              one);
  check_fused(step,
              model("q = Mul(x, x)\ns = ReduceSum(q, axes)\nr = Sqrt(s)\nc = Clip(r, tiny)\n"
                    "y = Div(x, c)\n"),
              one);
  check_fused(step,
              model("q = Pow(x, two)\ns = ReduceSum(q, axes)\nr = Sqrt(s)\n"
                    "c = Max(r, tiny)\ny = Div(x, c)\n"),
              one);
  check_fused(step,
              model("s = ReduceSumSquare(x) {axes=[1]}\nr = Sqrt(s)\nc = Clip(r, tiny)\n"
                    "y = Div(x, c)\n"),
              one);

  const char* rule = "fuse_lp_norm";
  check_refused(step, rule,
                model("r = ReduceL2(x) {axes=[1]}\nc = Clip(r, small)\ny = Div(x, c)\n"),
                "changes short vectors");
  check_refused(step, rule, model("r = ReduceL2(x) {axes=[1]}\ny = Div(x, r)\n"), "");
  check_refused(step, rule,
                model("r = ReduceL2(x) {axes=[1,2]}\nc = Clip(r, tiny)\n"
                      "y = Div(x, c)\n"),
                "");
  check_refused(step, rule,
                model("r = ReduceL2(x) {axes=[1]}\nc = Clip(r, tiny)\ny = Div(x, c)\n"
                      "output r\n"),
                "is a graph output");
  check_refused(step, rule,
                model("n2 = Neg(x)\nr = ReduceL2(n2) {axes=[1]}\nc = Clip(r, tiny)\n"
                      "y = Div(x, c)\n"),
                "");
}

}  // namespace
}  // namespace onnxpress
