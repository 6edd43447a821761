#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

constexpr const char* rms_norm = "fuse_rms_norm";

std::string text(int opset, const std::string& body) {
  return "model ir=10 opset=" + std::to_string(opset) +
         "\ninput x: float32[b,3,8]\ninitializer scale: float32[8] = random(1,0.5,2)\n"
         "initializer eps: float32[] = {0.000001}\ninitializer two: float32[] = {2}\n"
         "initializer one: float32[] = {1}\ninitializer axes: int64[1] = {-1}\n" +
         body;
}

TEST_CASE("RMS normalization as exporters write it") {
  for (const char* square : {"Pow(x, two)", "Mul(x, x)"})
    for (const char* last : {"r = Reciprocal(s)\nn = Mul(x, r)\n", "n = Div(x, s)\n",
                             "r = Div(one, s)\nn = Mul(r, x)\n"})
      for (const char* end : {"y = Mul(n, scale)\n", "y = Mul(scale, n)\n"}) {
        const std::string body = "q = " + std::string(square) +
                                 "\nv = ReduceMean(q, axes)\na = Add(v, eps)\ns = Sqrt(a)\n" +
                                 last + end + "output y\n";
        check_fused(rms_norm, text(23, body), "RMSNormalization");
        check_refused(rms_norm, "fuse_rms_norm", text(18, body),
                      "RMSNormalization needs opset 23, the model has 18");
      }
}

TEST_CASE("RMS normalization of float16 in float32") {
  const std::string model =
      "model ir=10 opset=23\ninput h: float16[2,8]\ninitializer eps: float32[] = {0.1}\n"
      "initializer axes: int64[1] = {-1}\ninitializer w: float16[8] = random(1)\n"
      "x = Cast(h) {to=1}\nq = Mul(x, x)\nv = ReduceMean(q, axes)\na = Add(v, eps)\ns = Sqrt(a)\n"
      "n = Div(x, s)\nk = Cast(n) {to=10}\ny = Mul(w, k)\noutput y\n";
  check_fused(rms_norm, model, "RMSNormalization");
}

TEST_CASE("why RMS normalizations are left alone") {
  const std::string middle = "a = Add(v, eps)\ns = Sqrt(a)\nn = Div(x, s)\noutput n\n";
  check_refused(rms_norm, "fuse_rms_norm",
                text(23,
                     "initializer first: int64[1] = {1}\nq = Mul(x, x)\n"
                     "v = ReduceMean(q, first)\n" +
                         middle),
                "other than the last axes");
  check_refused(rms_norm, "fuse_rms_norm",
                text(23, "q = Mul(x, x)\nv = ReduceMean(q, axes)\n" + middle + "output v\n"),
                "is a graph output");
  // The square of something else.
  check_refused(rms_norm, "fuse_rms_norm",
                text(23, "z = Abs(x)\nq = Mul(z, z)\nv = ReduceMean(q, axes)\n" + middle), "");
}

}  // namespace
}  // namespace onnxpress
