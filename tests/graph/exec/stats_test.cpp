#include "graph/exec/stats.h"

#include <doctest/doctest.h>

#include "graph/ir/parse.h"
#include "graph/onnx/writer.h"

namespace onnxpress {
namespace {

const CountedBytes& row(const std::vector<CountedBytes>& rows, const std::string& key) {
  for (const CountedBytes& found : rows)
    if (found.key == key) return found;
  FAIL("no row ", key);
  return rows.front();
}

TEST_CASE("what a model weighs, by hand") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n,2]
initializer q: int8[2,3] = {5,1,2,5,6,7}
initializer s: float32[3] = {1,0.5,0.25}
initializer z: int8[3] = {5,1,6}
initializer b: float32[3] = {0,-0.0,1}
initializer i: int64[1] = {0}
w = DequantizeLinear(q, s, z) {axis=1}
t = Transpose(w)
h = Gemm(x, t, b) {transB=1} "fc"
y: float32[1,3] = Gather(h, i)
output y: float32[1,3]
)");
  const ModelStats found = model_stats(*model);
  CHECK(found.nodes == 4);
  CHECK(found.tensor_bytes == 6 + 12 + 3 + 12 + 8);
  CHECK(found.parameters == 6 + 3 + 3);
  CHECK(found.zeros == 3 + 2);  // q: 5, 1 and 5 equal their zero points; b: both signs of zero
  CHECK(found.sparsity() == doctest::Approx(5.0 / 12));
  CHECK(found.macs == 2 * 3);
  CHECK(found.macs_unknown == 0);
  CHECK(found.serialized_bytes == static_cast<std::int64_t>(to_bytes(*model).size()));
  REQUIRE(found.tensors.size() == 5);
  CHECK(found.tensors[0].bytes == 12);
  for (const TensorStats& tensor : found.tensors) {
    CHECK(tensor.op_type == (tensor.name == "i" ? "Gather" : "Gemm"));
    if (tensor.name == "q") {
      CHECK(tensor.zeros == 3);
      CHECK(tensor.bits == 8);
      CHECK(tensor.node == "fc");
      CHECK(tensor.type == "int8");
    }
  }
  CHECK(row(found.by_operator, "Gemm").bytes == 33);
  CHECK(row(found.by_operator, "Gemm").macs == 6);
  CHECK(row(found.by_operator, "Transpose").count == 1);
  CHECK(row(found.by_type, "int8").bytes == 9);
  CHECK(row(found.by_type, "float32").count == 2);
  CHECK(found.by_operator[0].key == "Gemm");
}

TEST_CASE("Constant nodes, sparse initializers and subgraphs count") {
  const auto model = parse_model(R"(model ir=8 opset=17
input c: bool[]
input x: float32[10]
initializer s = sparse[10](float32[2]{1,2}, int64[2]{3,4})
k = Constant() {value=float32[2]{0,3}}
a = Add(x, s)
y = If(c) {then_branch=graph {
  initializer d: float16[4] = {0,0,0,1}
  u = Identity(d)
  output u
}, else_branch=graph {
  v = Identity(k)
  output v
}}
output a
output y
)");
  const ModelStats found = model_stats(*model);
  CHECK(found.nodes == 4);
  CHECK(found.tensor_bytes == 8 + 8 + 16 + 8);
  CHECK(found.parameters == 2 + 2 + 4);
  CHECK(found.zeros == 1 + 3);
  for (const TensorStats& tensor : found.tensors)
    if (tensor.name == "s") {
      CHECK(tensor.elements == 10);
      CHECK(tensor.zeros == 8);
      CHECK(tensor.op_type == "Add");
    }
}

}  // namespace
}  // namespace onnxpress
