#include "passes/common/untie_parameters.h"

#include <doctest/doctest.h>

#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "graph/rewrite/pattern.h"
#include "tests/passes/common/listed_data.h"

namespace onnxpress {
namespace {

TEST_CASE("parameters that were stored once because they were equal become several") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n,3,4,4]
initializer w1: float32[3,3,1,1] = random(1)
initializer ones: float32[3] = ones
initializer zeros: float32[3] = zeros
scale2 = Identity(ones)
mean2 = Identity(zeros)
later = Identity(mean2)
a = Conv(x, w1)
b = BatchNormalization(a, ones, zeros, zeros, ones)
c = Conv(b, w1)
d = BatchNormalization(c, scale2, mean2, later, ones)
y: float32[n,3,4,4] = Identity(d)
output y: float32[n,3,4,4]
)");
  const auto before = model->clone();
  // Three behind Identity; of the first BatchNormalization scale, bias and variance: what is left has one reader.
  CHECK(untie_parameters(*model) == 6);
  REQUIRE_NOTHROW(verify(*model));
  for (const Value* value : model->graph.initializers())
    CHECK_MESSAGE(value->uses().size() == (value->name() == "w1" ? 2U : 1U), value->name());
  for (const char* name : {"scale2", "mean2", "later"}) CHECK(model->graph.find(name)->initializer() != nullptr);
  CHECK(model->graph.node_count() == before->graph.node_count() - 3);
  const std::vector<Tensor> inputs{normal_tensor({2, 3, 4, 4}, 4)};
  CHECK(Engine(*model, {.threads = 1}).run(inputs)[0].equals(Engine(*before, {.threads = 1}).run(inputs)[0]));
  CHECK(untie_parameters(*model) == 0);
}

}  // namespace
}  // namespace onnxpress
