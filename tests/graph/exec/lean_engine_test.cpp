#include <doctest/doctest.h>

#include <cstring>

#include "graph/exec/engine.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

// Weights above what a lean engine leaves where they are, one of them at an odd address as a mapped
// file may have it, and a DequantizeLinear of constants that it does not compute beforehand.
std::unique_ptr<Model> make_model() {
  auto model = parse_model(R"(model ir=10 opset=21
input x: float32[3,200]
initializer w: float32[200,300] = random(1)
initializer q: int8[300,200] = random(2,-100,100)
initializer s: float32[200] = random(3,0.01,0.02)
initializer t: float32[100,200] = random(4)
a = MatMul(x, w)
d = DequantizeLinear(q, s) {axis=1}
b = MatMul(a, d)
u = Transpose(t) {perm=[1,0]}
y = MatMul(b, u)
output y: float32[3,100]
)");
  const Tensor weight = *model->graph.find("w")->constant();
  auto moved = std::make_shared<std::vector<std::byte>>(weight.byte_size() + 1);
  std::memcpy(moved->data() + 1, weight.bytes().data(), weight.byte_size());
  model->graph.set_initializer(model->graph.find("w"),
                               Tensor::view(DType::float32, weight.dims(), std::span(*moved).subspan(1), moved));
  return model;
}

TEST_CASE("a lean engine computes the same, run after run") {
  const auto model = make_model();
  std::vector<float> values(600);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) - 8;
  const std::vector<Tensor> inputs{Tensor::of<float>({3, 200}, values)};
  const std::vector<float> expected = Engine(*model, {.threads = 1, .reference = true}).run(inputs)[0].to_floats();
  for (const bool fuse : {false, true}) {
    Engine lean(*model, {.threads = 2, .fuse = fuse, .lean = true});
    for (int run = 0; run < 2; ++run) {
      const std::vector<float> found = lean.run(inputs)[0].to_floats();
      REQUIRE(found.size() == expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == doctest::Approx(expected[i]).epsilon(1e-3));
    }
  }
}

}  // namespace
}  // namespace onnxpress
