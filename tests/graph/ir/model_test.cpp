#include "graph/ir/model.h"

#include <doctest/doctest.h>

#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

TEST_CASE("functions are found by domain, name and overload") {
  const auto model = parse_model(R"(model ir=8 opset=17 local=1
input x
a = local.F(x)
b = local.F:fast(x)
c = F(x)
function local.F() opset=17 {
  input v
  output v
}
function local.F:fast() opset=17 {
  input v
  output v
}
)");
  const auto function = [&](const char* name) {
    return model->function(*model->graph.find(name)->producer());
  };
  CHECK(function("a") == model->functions[0].get());
  CHECK(function("b") == model->functions[1].get());
  CHECK(function("c") == nullptr);
  int graphs = 0;
  model->for_each_graph([&](Graph&) { ++graphs; });
  CHECK(graphs == 3);
}

TEST_CASE("required inputs are those without a default") {
  const auto model = parse_model("model ir=8 opset=17\ninput x\ninput d: float32[1] = {1}\n");
  CHECK(model->required_inputs() == std::vector<Value*>{model->graph.find("x")});
}

TEST_CASE("parameters are float constants and quantized weights") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
initializer shape: int64[2] = {1,2}
initializer w: float32[3,4] = zeros
initializer h: float16[5] = zeros
initializer q: int8[7] = zeros
initializer bias: int32[2] = zeros
initializer scale: float32[] = {1}
initializer zero: int8[] = {0}
initializer packed: uint4[9] = zeros
initializer sparse = sparse[100](float32[3]{1,2,3}, int64[3]{1,2,3})
k = Constant() {value=float32[2]{1,2}}
kq = Constant() {value=int8[2]{1,2}}
ki = Constant() {value=int64[2]{1,2}}
kv = Constant() {value_float=1.0}
a = DequantizeLinear(q, scale, zero)
b = DequantizeLinear(q, scale, zero)
c = QLinearConv(x, scale, zero, packed, scale, zero, scale, zero, bias)
d = If(x) {then_branch=graph {
  initializer inner: float32[6] = zeros
  e = DequantizeLinear(kq, scale)
  output e
}}
f = Reshape(w, shape)
)");
  // w, h, q, bias, scale, packed, sparse, k, kq, inner
  CHECK(parameter_count(*model) == 12 + 5 + 7 + 2 + 1 + 9 + 3 + 2 + 2 + 6);
}

}  // namespace
}  // namespace onnxpress
