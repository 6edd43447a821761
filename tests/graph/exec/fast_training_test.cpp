// Training on fast rows, in place and with recomputation, against plain kernels.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/trainer.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

// Residuals, so that gradients are summed and shared; runs of elementwise operators, which work in
// place; a value that is read as input and as output.
constexpr const char* net = R"(model ir=8 opset=20
input x: float32[n,4,12,12]
initializer w1: float32[16,4,3,3] = random(1)
initializer s1: float32[16] = random(2,0.5,1.5)
initializer b1: float32[16] = random(3)
initializer m1: float32[16] = zeros
initializer v1: float32[16] = ones
initializer w2: float32[16,16,3,3] = random(4)
initializer s2: float32[16] = random(5,0.5,1.5)
initializer b2: float32[16] = random(6)
initializer m2: float32[16] = zeros
initializer v2: float32[16] = ones
initializer s3: float32[16] = random(7,0.5,1.5)
initializer b3: float32[16] = random(8)
initializer k: float32[16,1] = random(9)
initializer w3: float32[16,5] = random(10)
initializer c3: float32[5] = random(11)
initializer axes: int64[1] = {1}
initializer shape: int64[3] = {0,16,36}
c1 = Conv(x, w1) {pads=[1,1,1,1]}
n1 = BatchNormalization(c1, s1, b1, m1, v1)
r1 = Relu(n1)
c2 = Conv(r1, w2) {pads=[1,1,1,1]}
n2 = BatchNormalization(c2, s2, b2, m2, v2)
a2 = Add(n2, r1)
g2 = Gelu(a2)
p2 = MaxPool(g2) {kernel_shape=[2,2], strides=[2,2]}
q2 = Reshape(p2, shape)
t2 = Mul(q2, k)
u2 = Tanh(t2)
z2 = Transpose(u2) {perm=[0,2,1]}
l2 = LayerNormalization(z2, s3, b3)
o2 = Softmax(l2)
h2 = Mul(o2, l2)
e2 = ReduceMean(h2, axes) {keepdims=0}
logits: float32[n,5] = Gemm(e2, w3, c3)
output logits: float32[n,5]
)";

struct Trained {
  std::vector<double> losses;
  std::vector<Tensor> values;
  std::size_t reserved_bytes = 0;
};

Trained train(TrainerOptions options) {
  const auto model = parse_model(net);
  options.optimizer.kind = OptimizerOptions::Kind::momentum;
  options.schedule.rate = 0.02;
  Trainer trainer(*model, trainable_parameters(*model), std::vector<LossTerm>{{.kind = LossTerm::Kind::cross_entropy}},
                  std::move(options));
  Random random(3);
  Trained trained;
  for (int step = 0; step < 4; ++step) {
    Tensor x(DType::float32, {8, 4, 12, 12}), y(DType::int64, {8});
    for (float& value : x.mutable_data<float>()) value = static_cast<float>(random.normal());
    for (std::int64_t& label : y.mutable_data<std::int64_t>()) label = static_cast<std::int64_t>(random.next() % 5);
    trained.losses.push_back(trainer.step(std::vector{x}, std::vector{y}).loss);
  }
  for (std::size_t i = 0; i < trainer.parameters().size(); ++i) trained.values.push_back(trainer.value(i));
  trained.reserved_bytes = trainer.reserved_bytes();
  return trained;
}

TEST_CASE("training on fast rows is that on plain ones, whatever the threads") {
  const Trained expected = train({.threads = 1, .reference = true});
  REQUIRE(expected.values.size() == 11);
  for (const int threads : {1, 2}) {
    CAPTURE(threads);
    const Trained found = train({.threads = threads});
    for (std::size_t i = 0; i < expected.losses.size(); ++i)
      CHECK(found.losses[i] == doctest::Approx(expected.losses[i]).epsilon(1e-5));
    for (std::size_t i = 0; i < expected.values.size(); ++i) {
      const auto a = found.values[i].data<float>(), b = expected.values[i].data<float>();
      float furthest = 0;
      for (std::size_t k = 0; k < a.size(); ++k) furthest = std::max(furthest, std::abs(a[k] - b[k]));
      CAPTURE(i);
      CHECK(furthest < 2e-5F);
    }
  }
}

TEST_CASE("values that are recomputed give the same bytes in less memory") {
  for (const bool reference : {false, true}) {
    CAPTURE(reference);
    const Trained kept = train({.threads = 2, .reference = reference});
    const Trained again = train({.threads = 2, .reference = reference, .recompute = true});
    CHECK(kept.losses == again.losses);
    for (std::size_t i = 0; i < kept.values.size(); ++i) CHECK(kept.values[i].equals(again.values[i]));
    CHECK(again.reserved_bytes < kept.reserved_bytes);
  }
}

TEST_CASE("the gradient of a table of the result's dims does not lie over that of the result") {
  const auto model = parse_model(R"(model ir=8 opset=17
input i: int64[3]
initializer table: float32[3,4] = random(1)
initializer w: float32[4,2] = random(2)
e = Gather(table, i)
t = Tanh(e)
y: float32[3,2] = MatMul(t, w)
output y: float32[3,2]
)");
  const std::vector<Tensor> inputs = {Tensor::of<std::int64_t>({3}, std::vector<std::int64_t>{2, 0, 2})};
  const std::vector<Tensor> targets = {Tensor::of<std::int64_t>({3}, std::vector<std::int64_t>{0, 1, 1})};
  const std::vector<LossTerm> loss = {{.kind = LossTerm::Kind::cross_entropy}};
  const auto trained = [&](bool reference) {
    TrainerOptions options{.threads = 1, .reference = reference};
    options.schedule.rate = 1;
    Trainer trainer(*model, {"table", "w"}, loss, options);
    trainer.step(inputs, targets);
    return trainer.value(0);
  };
  const Tensor found = trained(false), expected = trained(true);
  for (std::size_t k = 0; k < 12; ++k)
    CHECK(found.data<float>()[k] == doctest::Approx(expected.data<float>()[k]).epsilon(1e-5));
}

}  // namespace
}  // namespace onnxpress
