#include "passes/common/rebuild_batch_norm.h"

#include <doctest/doctest.h>

#include "graph/exec/engine.h"
#include "graph/exec/trainer.h"
#include "graph/ir/parse.h"
#include "graph/rewrite/pattern.h"
#include "tests/passes/common/labelled_data.h"
#include "tests/passes/common/listed_data.h"

namespace onnxpress {
namespace {

// One convolution that may have a BatchNormalization, one without a bias, one that is an output.
constexpr const char* net = R"(model ir=8 opset=17
input x: float32[n,2,6,6]
initializer w1: float32[4,2,3,3] = random(1)
initializer b1: float32[4] = random(2)
initializer w2: float32[4,3,2,2] = random(3)
initializer b2: float32[3] = random(4)
initializer w3: float32[2,3,1,1] = random(5)
initializer w4: float32[2,2,1,1] = random(6)
initializer b4: float32[2] = random(7)
c = Conv(x, w1, b1) {pads=[1,1,1,1]}
r = Relu(c)
t = ConvTranspose(r, w2, b2)
u = Relu(t)
d = Conv(u, w3)
y: float32[n,2,h,w] = Conv(d, w4, b4)
output y: float32[n,2,h,w]
)";

double largest_difference(const Model& a, const Model& b, const Tensor& x) {
  const std::vector<Tensor> inputs{x};
  const auto first = Engine(a, {.threads = 1}).run(inputs)[0].to_floats();
  const auto second = Engine(b, {.threads = 1}).run(inputs)[0].to_floats();
  REQUIRE(first.size() == second.size());
  double largest = 0;
  for (std::size_t i = 0; i < first.size(); ++i)
    largest = std::max(largest, std::abs(double{first[i]} - double{second[i]}));
  return largest;
}

TEST_CASE("BatchNormalization that is put in, and folded again, changes no output") {
  const auto model = parse_model(net);
  const Tensor x = normal_tensor({40, 2, 6, 6}, 8, 2);
  LabelledData data({x}, Tensor());
  const Options options;
  ThreadPool pool(1);
  PassContext context{.options = options, .pool = pool, .training = &data};
  const auto rebuilt = model->clone();
  CHECK(insert_batch_norm(*rebuilt, trainable_parameters(*model), context) == std::vector<std::string>{"w1", "w2"});
  CHECK(rebuilt->graph.node_count() == model->graph.node_count() + 2);
  REQUIRE_NOTHROW(verify(*rebuilt));
  CHECK(largest_difference(*model, *rebuilt, x) < 1e-4);

  // What was trained meanwhile is what the folded model computes.
  const auto set = [&](const char* name, std::vector<float> values) {
    const Dims dims{std::ssize(values)};
    rebuilt->graph.set_initializer(rebuilt->graph.find(name), Tensor::of<float>(dims, values));
  };
  set("w1_scale", {2, 1, -1, 0.5F});
  set("w1_shift", {0, 1, 2, 3});
  set("w2_mean", {-1, 0, 1});
  set("w2_variance", {1, 4, 9});
  set("b4", {5, 6});
  const auto folded = model->clone();
  fold_batch_norm(*rebuilt, {"w1", "w2"}, *folded);
  CHECK(folded->graph.node_count() == model->graph.node_count());
  CHECK(largest_difference(*folded, *rebuilt, x) < 1e-4);
  CHECK(largest_difference(*folded, *model, x) > 1);

  // Frozen weights have none.
  const auto other = model->clone();
  CHECK(insert_batch_norm(*other, {"w2", "b1"}, context) == std::vector<std::string>{"w2"});
}

}  // namespace
}  // namespace onnxpress
