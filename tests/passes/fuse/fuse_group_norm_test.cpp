#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

std::string text(int opset, const std::string& cut, const std::string& body) {
  return "model ir=10 opset=" + std::to_string(opset) +
         "\ninput x: float32[n,6,4,5]\ninitializer cut: int64[3] = " + cut +
         "\ninitializer one: float32[2] = random(1,0.5,2)\n"
         "initializer zero: float32[2] = random(2)\n"
         "initializer w: float32[6,1,1] = random(3)\ninitializer b: float32[1,6,1,1] = random(4)\n"
         "r = Reshape(x, cut)\ni = InstanceNormalization(r, one, zero) {epsilon=0.001}\n"
         "d = Shape(x)\nj = Reshape(i, d)\n" +
         body + "output y\n";
}

TEST_CASE("group normalization as PyTorch's exporter writes it") {
  const char* step = "fuse_group_norm";
  const char* rule = "fuse_group_norm";
  const std::string affine = "g = Mul(j, w)\ny = Add(g, b)\n";
  const PassRun run = check_fused(step, text(21, "{0,2,-1}", affine), "GroupNormalization");
  CHECK(to_text(*run.after).find("num_groups=2") != std::string::npos);
  check_refused(step, rule, text(18, "{0,2,-1}", affine), "needs opset 21, the model has 18");
  check_refused(step, rule, text(21, "{0,2,-1}", "y = Mul(j, w)\n"), "no scale and bias");
  check_refused(step, rule, text(21, "{0,2,-1}", affine + "output i\n"), "");
  check_refused(step, rule, text(21, "{0,2,-1}", affine + "output r\n"), "is a graph output");
  check_refused(step, rule, text(21, "{1,2,-1}", affine), "not known to cut the channels");
  check_refused(
      step, rule,
      text(21, "{0,2,-1}",
           "v = InstanceNormalization(r, one, zero)\nz = Neg(v)\n" + affine + "output z\n"),
      "has another reader");
}

}  // namespace
}  // namespace onnxpress
