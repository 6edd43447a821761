// Integer products with their scaling as one step, against plans without.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "graph/kernels/quantized_primitive.h"

namespace onnxpress {
namespace {

const std::string head =
    "model ir=8 opset=17 com.microsoft=1\ninput x: float32[4,3,24]\n"
    "initializer w: int8[24,18] = random(1,-127,127)\ninitializer s: float32[18] = random(2,0.001,0.01)\n"
    "initializer b: float32[18] = random(3)\nq, qs, qz = DynamicQuantizeLinear(x)\n";

// The operators of the plan; outputs agree with the reference kernels'.
std::string steps(const std::string& text) {
  CAPTURE(text);
  const auto model = parse_model(text);
  Tensor x(DType::float32, {4, 3, 24});
  Random random(5);
  for (float& value : x.mutable_data<float>()) value = static_cast<float>(random.normal());
  const std::vector<Tensor> inputs{x};
  Engine reference(*model, {.threads = 1, .reference = true}), fused(*model, {.threads = 2});
  const auto expected = reference.run(std::span(inputs)), found = fused.run(std::span(inputs));
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto a = found[i].to_floats(), c = expected[i].to_floats();
    REQUIRE(a.size() == c.size());
    for (std::size_t k = 0; k < a.size(); ++k) CHECK(std::abs(a[k] - c[k]) <= 1e-5F * (1 + std::abs(c[k])));
  }
  const std::vector<Type> types{Type::of(x)};
  std::string joined;
  for (const PlanSummary::Step& step : fused.summary(types).steps)
    joined += (joined.empty() ? "" : " ") + step.op_type;
  return joined;
}

TEST_CASE("the scaling of integer sums goes into the product") {
  const bool has_row = onednn::has_exact_sums();
  const std::string whole = has_row ? "DynamicQuantizeLinear MatMulIntegerToFloat" : "";
  const auto check = [&](const std::string& text, const std::string& expected) {
    const std::string found = steps(text);
    if (has_row) CHECK(found == expected);
  };
  const std::string product = "m = MatMulInteger(q, w, qz)\nf = Cast(m) {to=1}\n";
  check(head + product + "ss = Mul(qs, s)\ny = Mul(f, ss)\noutput y\n", whole);
  check(head + product + "ss = Mul(s, qs)\nt = Mul(ss, f)\ny = Add(b, t)\noutput y\n", whole);
  check(head + "initializer wz: int8[18] = random(4,-5,5)\nm = MatMulInteger(q, w, qz, wz)\nf = Cast(m) {to=1}\n"
               "ss = Mul(qs, s)\nt = Mul(f, ss)\ny = Add(t, b)\noutput y\n", whole);
  check(head + "initializer v: int8[18,24] = random(4,-127,127)\nvt = Transpose(v) {perm=[1,0]}\n"
               "m = MatMulInteger(q, vt, qz)\nf = Cast(m) {to=1}\nss = Mul(qs, s)\ny = Mul(f, ss)\noutput y\n", whole);
  // The sums are read elsewhere too; the bias is not one for each column.
  check(head + product + "ss = Mul(qs, s)\ny = Mul(f, ss)\noutput y\noutput m\n",
        "DynamicQuantizeLinear MatMulInteger Cast Mul Mul");
  check(head + "initializer c: float32[4,3,18] = random(7)\n" + product +
            "ss = Mul(qs, s)\nt = Mul(f, ss)\ny = Add(t, c)\noutput y\n",
        whole + " Add");
}

}  // namespace
}  // namespace onnxpress
