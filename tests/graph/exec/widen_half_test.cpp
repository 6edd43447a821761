// Models in float16 and bfloat16 on fused plans against the reference kernels.
#include "graph/exec/widen_half.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {
namespace {

// Outputs by the reference kernels, which round after every node, and on a fused plan differ by
// rounding only. Returns the operators of the fused plan that have a kernel of their own.
std::string check(const std::string& text, double tolerance = 4e-3) {
  CAPTURE(text);
  const auto model = parse_model("model ir=10 opset=21\n" + text);
  std::vector<Tensor> inputs;
  std::vector<Type> types;
  Random random(3);
  for (const Value* input : model->required_inputs()) {
    Tensor tensor(DType::float32, concrete(*input->type.shape).value());
    for (float& value : tensor.mutable_data<float>()) value = static_cast<float>(random.normal());
    inputs.push_back(tensor.cast(input->type.elem));
    types.push_back(Type::of(inputs.back()));
  }
  Engine reference(*model, {.threads = 1, .reference = true});
  Engine fused(*model, {.threads = 2});
  const std::vector<Tensor> expected = reference.run(std::span(inputs));
  const std::vector<Tensor> found = fused.run(std::span(inputs));
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found[i].dtype() == expected[i].dtype());
    REQUIRE(found[i].dims() == expected[i].dims());
    const std::vector<float> a = found[i].to_floats(), b = expected[i].to_floats();
    float worst = 0, range = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
      worst = std::max(worst, std::abs(a[k] - b[k]));
      range = std::max(range, std::abs(b[k]));
    }
    CHECK(worst <= tolerance * range);
  }
  std::string fast;
  for (const PlanSummary::Step& step : fused.summary(types).steps)
    if (step.backend == "onednn") fast += step.op_type + " ";
  return fast;
}

TEST_CASE("half convolutions and products run on the fast kernels for float32") {
  for (const std::string type : {"float16", "bfloat16"}) {
    const double tolerance = type == "float16" ? 4e-3 : 3e-2;
    CHECK(check("input x: " + type + "[2,6,9,7]\ninitializer w: " + type +
                    "[8,6,3,3] = random(1)\ninitializer b: " + type +
                    "[8] = random(2)\n"
                    "c = Conv(x, w, b)\nr = Relu(c)\ny = GlobalAveragePool(r)\noutput y: " +
                    type + "[2,8,1,1]\n",
                tolerance)
              .starts_with("Conv "));
    CHECK(check("input x: " + type + "[3,16]\ninitializer w: " + type +
                    "[16,8] = random(1)\nm = MatMul(x, w)\ny = Softmax(m)\noutput y: " + type +
                    "[3,8]\noutput m: " + type + "[3,8]\n",
                tolerance) == "MatMul ");
  }
}

TEST_CASE("nothing is rounded between two such operators") {
  // 4096 + 1 is no float16, 4097 - 4096 in float32 is 1.
  const auto model = parse_model(R"(model ir=10 opset=21
input x: float16[1]
initializer one: float16[1] = {1}
s = Add(x, one)
y = Sub(s, x)
output y: float16[1]
)");
  Engine engine(*model, {.threads = 1});
  const std::vector<Tensor> inputs{Tensor::of<float>({1}, {4096}).cast(DType::float16)};
  CHECK(engine.run(std::span(inputs))[0].to_floats()[0] == 1);
  Engine plain(*model, {.threads = 1, .fuse = false});
  CHECK(plain.run(std::span(inputs))[0].to_floats()[0] == 0);
}

TEST_CASE("what is read elsewhere, in branches and as other types stays right") {
  check(R"(input x: float16[2,4]
initializer w: float16[4,4] = random(1)
initializer yes: bool[] = {1}
a = MatMul(x, w)
i = ArgMax(a) {axis=1,keepdims=0}
f = Cast(a) {to=1}
b = If(yes) {
  then_branch=graph {
    t = MatMul(a, w)
    output t
  },
  else_branch=graph {
    e = Neg(a)
    output e
  }
}
z = Where(yes, b, x)
output z: float16[2,4]
output i: int64[2]
output f: float32[2,4]
output a: float16[2,4]
)");
}

TEST_CASE("a model without half weights or inputs is left alone") {
  CHECK(widened_half(*parse_model("model ir=10 opset=21\ninput x: float32[2]\n"
                                  "y = Relu(x)\noutput y\n")) == nullptr);
  const auto wide = widened_half(*parse_model(
      "model ir=10 opset=21\ninput x: float16[2]\ny = Relu(x)\noutput y: float16[2]\n"));
  REQUIRE(wide);
  verify(*wide);
  CHECK(wide->graph.node_count() == 3);
  CHECK(wide->graph.outputs()[0]->name() == "y");
}

}  // namespace
}  // namespace onnxpress
