// Plans that fuse, and yet produce the values that an observer is about.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

class Recorder final : public Observer {
 public:
  explicit Recorder(bool any = false) : any_(any) {}
  bool wants(const Value&) override { return true; }
  bool any_layout(const Value&) override { return any_; }
  void observe(const Value& value, const Tensor& tensor) override {
    ++times[value.name()];
    last[value.name()] = Tensor::of<float>(tensor.dims(), tensor.cast(DType::float32).data<float>());
  }

  std::map<std::string, int> times;
  std::map<std::string, Tensor> last;

 private:
  bool any_;
};

constexpr std::string_view image_model = R"(
model ir=8 opset=17
input x: float32[n,8,9,7]
initializer w1: float32[16,8,3,3] = random(1,-0.2,0.2)
initializer b1: float32[16] = random(2,-0.2,0.2)
initializer w2: float32[16,16,1,1] = random(3,-0.2,0.2)
initializer scale: float32[16] = random(4,0.5,1.5)
initializer shift: float32[16] = random(5,-0.2,0.2)
initializer mean: float32[16] = random(6,-0.2,0.2)
initializer var: float32[16] = random(7,0.5,1.5)
c1 = Conv(x, w1, b1) {pads=[1,1,1,1]}
n1 = BatchNormalization(c1, scale, shift, mean, var)
r1 = Relu(n1)
c2 = Conv(r1, w2)
s = Add(c2, r1)
r2 = Relu(s)
p = MaxPool(r2) {kernel_shape=[2,2], strides=[2,2]}
g = GlobalAveragePool(p)
y = Flatten(g)
output y: float32[n,16]
)";

Tensor random_tensor(Dims dims, std::uint64_t seed) {
  Random random(seed);
  Tensor tensor(DType::float32, std::move(dims));
  for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(random.normal());
  return tensor;
}

void check_near(const Tensor& found, const Tensor& expected) {
  REQUIRE(found.dims() == expected.dims());
  float worst = 0;
  for (std::int64_t i = 0; i < found.size(); ++i)
    worst = std::max(worst, std::fabs(found.data<float>()[i] - expected.data<float>()[i]));
  CHECK(worst <= 1e-4F);
}

Recorder record(const Model& model, const EngineOptions& options, const std::vector<Tensor>& inputs, bool any = false) {
  Engine engine(model, options);
  Recorder recorder(any);
  for (int i = 0; i < 2; ++i) engine.run(std::span<const Tensor>(inputs), &recorder);
  return recorder;
}

TEST_CASE("kept values are shown once a run, as they are without fusion") {
  const auto model = parse_model(image_model);
  const std::vector<Tensor> inputs{random_tensor({2, 8, 9, 7}, 1)};
  const Recorder expected = record(*model, {.threads = 1, .fuse = false}, inputs);
  const std::set<std::string> all{"c1", "n1", "r1", "c2", "s", "r2", "p", "g", "y"};
  for (const std::set<std::string>& kept :
       {std::set<std::string>{"r1", "r2"}, std::set<std::string>{"c1", "s"}, std::set<std::string>{"p", "y"}, all}) {
    const EngineOptions options{.threads = 1, .kept = [&](const Value& value) { return kept.contains(value.name()); }};
    const Recorder found = record(*model, options, inputs);
    for (const std::string& name : kept) {
      CAPTURE(name);
      REQUIRE(found.times.contains(name));
      CHECK(found.times.at(name) == 2);
      check_near(found.last.at(name), expected.last.at(name));
    }
    if (!kept.contains("c1")) CHECK_FALSE(found.last.contains("n1"));  // inside a step
  }
}

TEST_CASE("an observer that takes any layout gets images as they are") {
  const auto model = parse_model(image_model);
  const std::vector<Tensor> inputs{random_tensor({2, 8, 9, 7}, 1)};
  const EngineOptions options{.threads = 1, .kept = [](const Value& value) { return value.name() == "r1"; }};
  const Recorder plain = record(*model, options, inputs), any = record(*model, options, inputs, true);
  const Tensor& image = plain.last.at("r1");
  const Tensor& found = any.last.at("r1");
  REQUIRE(image.dims() == Dims{2, 16, 9, 7});
  REQUIRE((found.dims() == Dims{2, 9, 7, 16} || found.dims() == image.dims()));
  if (found.dims() == image.dims()) return;  // no kernel with channels last here
  for (std::int64_t n = 0; n < 2; ++n)
    for (std::int64_t c = 0; c < 16; ++c)
      for (std::int64_t i = 0; i < 63; ++i)
        CHECK(found.data<float>()[static_cast<std::size_t>((n * 63 + i) * 16 + c)] ==
              image.data<float>()[static_cast<std::size_t>((n * 16 + c) * 63 + i)]);
}

TEST_CASE("values of subgraphs and of half precision are kept") {
  const auto model = parse_model(R"(
model ir=8 opset=17
input x: float16[n,4]
initializer go: bool[] = {1}
initializer trips: int64[] = {3}
initializer w: float16[4,4] = random(1)
m = MatMul(x, w)
a = Relu(m)
y = Loop(trips, go, a) {body=graph {
  input i: int64[]
  input more: bool[]
  input v: float16[n,4]
  next = Identity(more)
  u = MatMul(v, w)
  t = Sigmoid(u)
  output next
  output t
}}
output y: float16[n,4]
)");
  const std::vector<Tensor> inputs{random_tensor({2, 4}, 3).cast(DType::float16)};
  const Recorder expected = record(*model, {.threads = 1, .fuse = false}, inputs);
  const EngineOptions options{.threads = 1,
                              .kept = [](const Value& value) { return value.name() == "m" || value.name() == "u"; }};
  const Recorder found = record(*model, options, inputs);
  REQUIRE(found.times.contains("u"));
  CHECK(found.times.at("u") == 6);
  check_near(found.last.at("u"), expected.last.at("u"));
  check_near(found.last.at("m"), expected.last.at("m"));
}

}  // namespace
}  // namespace onnxpress
