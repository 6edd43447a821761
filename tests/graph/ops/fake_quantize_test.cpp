// Fake quantization: what QuantizeLinear and DequantizeLinear give, and the gradients of learned step size
// quantization.
#include "graph/ops/fake_quantize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "graph/base/random.h"
#include "graph/ir/parse.h"
#include "graph/ops/gradient.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

Tensor random_tensor(const Dims& dims, double low, double high, std::uint64_t seed) {
  Tensor tensor(DType::float64, dims);
  Random random(seed);
  for (double& value : tensor.mutable_data<double>()) value = random.uniform(low, high);
  return tensor;
}

// A FakeQuantize node by itself.
struct Trial {
  std::unique_ptr<Model> model;
  std::vector<Tensor> inputs;  // x, scale and, where it is there, zero point

  Trial(std::vector<Tensor> values, const std::string& attributes, DType type = DType::float64) {
    std::string text = "model ir=10 opset=21 onnxpress.training=1\n";
    const std::string names[] = {"x", "s", "z"};
    for (std::size_t i = 0; i < values.size(); ++i) {
      inputs.push_back(values[i].cast(type));
      const std::string dims = to_string(values[i].dims());
      text += fmt::format("input {}: {}{}\n", names[i], name(type), dims);
    }
    const std::string dims = to_string(values[0].dims());
    text += fmt::format("y: {}{} = onnxpress.training.FakeQuantize(x, s{}) {{{}}}\noutput y: {}{}\n", name(type), dims,
                        values.size() > 2 ? ", z" : "", attributes, name(type), dims);
    model = parse_model(text);
  }
  const Node& node() const { return *model->graph.nodes().front(); }
  std::vector<const Tensor*> pointers() const {
    std::vector<const Tensor*> result;
    for (const Tensor& input : inputs) result.push_back(&input);
    return result;
  }
  Tensor forward(int threads = 1) const {
    ThreadPool pool(threads);
    return evaluate(*operators().find(node()), node(), pointers(), pool).at(0);
  }
  std::vector<Tensor> backward(const Tensor& dy, int threads = 1) const {
    ThreadPool pool(threads);
    const Tensor* outputs[] = {nullptr};
    const Tensor* gradients[] = {&dy};
    return differentiate(*operators().gradients(node()).back(), node(), pointers(), outputs, gradients,
                         std::vector<bool>(inputs.size(), true), pool);
  }
};

// The formulas of the papers, element by element. `scale_of` gives the scale's number of an element.
struct Expected {
  std::vector<double> y, dx, ds, dz;

  template <class ScaleOf>
  Expected(const Tensor& x, const Tensor& scale, const Tensor* zero, const Tensor& dy, double lowest, double highest,
           double elements, const ScaleOf& scale_of) {
    ds.assign(static_cast<std::size_t>(scale.size()), 0);
    dz = ds;
    for (std::size_t i = 0; i < x.data<double>().size(); ++i) {
      const std::size_t k = scale_of(i);
      const double s = scale.data<double>()[k], z = zero != nullptr ? zero->data<double>()[k] : 0;
      const double v = x.data<double>()[i], g = dy.data<double>()[i];
      const double code = std::clamp(std::nearbyint(v / s) + z, lowest, highest);
      y.push_back((code - z) * s);
      const double below = lowest - z, above = highest - z;
      const bool inside = v / s > below && v / s < above;
      dx.push_back(inside ? g : 0);
      const double factor = 1 / std::sqrt(elements * std::max(above, -below));
      ds[k] += factor * g * (inside ? std::nearbyint(v / s) - v / s : v / s <= below ? below : above);
      dz[k] += factor * (inside ? 0 : -g * s);
    }
  }
};

void check_equal(const Tensor& found, const std::vector<double>& expected) {
  const Tensor wide = found.cast(DType::float64);
  REQUIRE(wide.data<double>().size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::fabs(wide.data<double>()[i] - expected[i]) / std::max(1.0, std::fabs(expected[i])));
  CHECK(worst < 1e-12);
}

TEST_CASE("gradients of one learned scale are those of the paper") {
  const Tensor x = random_tensor({3, 50, 7}, -1, 1, 1), dy = random_tensor({3, 50, 7}, -1, 1, 2);
  const Tensor scale = Tensor::scalar(0.11);
  for (const auto& [lowest, highest] : {std::pair{-1, 1}, {-8, 7}, {0, 15}, {-128, 127}, {0, 65535}}) {
    CAPTURE(highest);
    const Trial trial({x, scale}, fmt::format("lowest={}, highest={}", lowest, highest));
    const Expected expected(x, scale, nullptr, dy, lowest, highest, 1050, [](std::size_t) { return std::size_t{0}; });
    check_equal(trial.forward(), expected.y);
    const std::vector<Tensor> found = trial.backward(dy);
    check_equal(found[0], expected.dx);
    check_equal(found[1], expected.ds);
  }
}

TEST_CASE("scales by channel and in blocks, with zero points") {
  const Tensor x = random_tensor({5, 6, 4}, -1, 1, 3), dy = random_tensor({5, 6, 4}, -1, 1, 4);
  struct Case {
    Dims scale;
    std::string attributes;
    double elements;
    std::function<std::size_t(std::size_t)> scale_of;
  };
  const Case cases[] = {
      {{5}, "axis=0", 24, [](std::size_t i) { return i / 24; }},
      {{6}, "axis=1", 20, [](std::size_t i) { return i / 4 % 6; }},
      {{4}, "axis=-1", 30, [](std::size_t i) { return i % 4; }},
      {{5, 2, 4}, "axis=1, block_size=4", 3, [](std::size_t i) { return i / 24 * 8 + i / 4 % 6 / 4 * 4 + i % 4; }},
      {{5, 6, 2}, "axis=2, block_size=3", 2, [](std::size_t i) { return i / 4 * 2 + i % 4 / 3; }},
  };
  for (const Case& of : cases) {
    CAPTURE(of.attributes);
    const Tensor scale = random_tensor(of.scale, 0.05, 0.3, 5);
    Tensor zero(DType::float64, of.scale);
    for (std::size_t i = 0; i < zero.mutable_data<double>().size(); ++i)
      zero.mutable_data<double>()[i] = static_cast<double>(i % 4);
    const Trial trial({x, scale, zero}, "lowest=0, highest=3, " + of.attributes);
    const Expected expected(x, scale, &zero, dy, 0, 3, of.elements, of.scale_of);
    for (const int threads : {1, 3}) {
      check_equal(trial.forward(threads), expected.y);
      const std::vector<Tensor> found = trial.backward(dy, threads);
      check_equal(found[0], expected.dx);
      check_equal(found[1], expected.ds);
      check_equal(found[2], expected.dz);
    }
  }
}

TEST_CASE("features of a sample count, not the batch") {
  const Tensor x = random_tensor({8, 12}, -1, 1, 6), dy = random_tensor({8, 12}, -1, 1, 7);
  const Tensor scale = Tensor::scalar(0.2);
  const Expected expected(x, scale, nullptr, dy, 0, 7, 12, [](std::size_t) { return std::size_t{0}; });
  check_equal(Trial({x, scale}, "lowest=0, highest=7, has_batch=1").backward(dy)[1], expected.ds);
}

TEST_CASE("a scale below zero is its magnitude, and keeps following its gradient") {
  const Tensor x = random_tensor({40}, -1, 1, 8), dy = random_tensor({40}, -1, 1, 9);
  const Trial positive({x, Tensor::scalar(0.3)}, "lowest=-2, highest=1");
  const Trial negative({x, Tensor::scalar(-0.3)}, "lowest=-2, highest=1");
  CHECK(negative.forward().equals(positive.forward()));
  const double up = positive.backward(dy)[1].data<double>()[0], down = negative.backward(dy)[1].data<double>()[0];
  CHECK(up == -down);
}

TEST_CASE("float32 gives what QuantizeLinear and DequantizeLinear give, ties included") {
  Tensor x(DType::float32, {4, 20000});
  Random random(11);
  for (float& value : x.mutable_data<float>())
    value = 0.25F * static_cast<float>(static_cast<std::int64_t>(random.below(2001)) - 1000) * 0.5F;  // many ties
  const Tensor scale = Tensor::of<float>({4}, {0.25F, 0.1F, 1.3F, 2.0F});
  const Trial trial({x, scale, Tensor::of<float>({4}, {3, 0, -7, 120})}, "lowest=-128, highest=127, axis=0",
                    DType::float32);
  const auto reference = parse_model(R"(model ir=10 opset=21
input x: float32[4,20000]
initializer s: float32[4] = {0.25,0.1,1.3,2.0}
initializer z: int8[4] = {3,0,-7,120}
q: int8[4,20000] = QuantizeLinear(x, s, z) {axis=0}
y: float32[4,20000] = DequantizeLinear(q, s, z) {axis=0}
output y: float32[4,20000]
)");
  ThreadPool pool(1);
  const Node& first = *reference->graph.nodes()[0];
  const Node& second = *reference->graph.nodes()[1];
  const Tensor zero = *reference->graph.find("z")->constant();
  const std::vector<const Tensor*> given = {&x, &scale, &zero};
  const Tensor codes = evaluate(*operators().find(first), first, given, pool).at(0);
  const std::vector<const Tensor*> coded = {&codes, &scale, &zero};
  const Tensor expected = evaluate(*operators().find(second), second, coded, pool).at(0);
  CHECK(trial.forward(1).equals(expected));
  CHECK(trial.forward(3).equals(expected));
  // The same gradients on any number of threads.
  const Tensor dy = random_tensor({4, 20000}, -1, 1, 12).cast(DType::float32);
  const std::vector<Tensor> one = trial.backward(dy, 1), three = trial.backward(dy, 3);
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(one[i].equals(three[i]));
}

TEST_CASE("levels that are out of order are refused") {
  const Trial trial({Tensor::scalar(1.0), Tensor::scalar(1.0)}, "lowest=3, highest=3");
  CHECK_THROWS_WITH_AS(trial.forward(), doctest::Contains("expected codes in order"), Error);
}

}  // namespace
}  // namespace onnxpress
