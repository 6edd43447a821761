// The straight-through gradients of QuantizeLinear and DequantizeLinear.
#include "graph/ops/gradient.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// Gradients of the inputs of value `name`'s node for the given one of its output.
std::vector<Tensor> gradients(const Computed& computed, const std::string& name, const Tensor& dy,
                              const std::vector<bool>& wanted) {
  const Node& node = *computed.model().graph.find(name)->producer();
  std::vector<const Tensor*> inputs;
  for (const Value* input : node.inputs())
    inputs.push_back(input != nullptr ? &computed[input->name()] : nullptr);
  const Tensor* outputs[] = {&computed[name]};
  const Tensor* output_gradients[] = {&dy};
  ThreadPool pool(1);
  return differentiate(*operators().gradients(node).back(), node, inputs, outputs, output_gradients,
                       wanted, pool);
}

TEST_CASE("rounding is taken for the identity inside the codes' range") {
  const Computed computed(R"(initializer x: float32[5] = {-0.7,0.2,1.26,3.0,-1.3}
initializer s: float32[] = {0.5}
initializer z: int4[] = {1}
q = QuantizeLinear(x, s, z)
y = DequantizeLinear(q, s, z)
)",
                          21);
  const Tensor dy = Tensor::of<float>({5}, {1, 2, 3, 4, 5});
  // Codes from -8 to 7: all inside.
  const auto through = gradients(computed, "y", dy, {true, true, false});
  check_close(through[0], Tensor::of<float>({5}, {0.5f, 1, 1.5f, 2, 2.5f}));
  const auto back = gradients(computed, "q", through[0], {true, true, false});
  check_close(back[0], dy);
  // The scale: what rounding moved the codes by (Esser et al. 2020, learned step size, equation 3).
  const double moved[] = {0.4, -0.4, 0.48, 0, -0.4};
  double expected = 0;
  for (int i = 0; i < 5; ++i)
    expected += static_cast<double>(dy.data<float>()[static_cast<std::size_t>(i)]) * moved[i];
  const double found = static_cast<double>(through[1].data<float>()[0]) + static_cast<double>(back[1].data<float>()[0]);
  CHECK(found == doctest::Approx(expected).epsilon(1e-5));
}

TEST_CASE("codes that saturate stop the gradient and follow the scale") {
  const Computed computed(R"(initializer x: float32[2,2] = {-9.0,0.5,1.0,9.0}
initializer s: float32[2] = {0.01,0.05}
initializer z: int8[2] = {0,0}
q = QuantizeLinear(x, s, z) {axis=0}
y = DequantizeLinear(q, s, z) {axis=0}
)");
  const Tensor dy = Tensor::of<float>({2, 2}, {1, 1, 1, 1});
  const auto through = gradients(computed, "y", dy, {true, true, false});
  const auto back = gradients(computed, "q", through[0], {true, true, false});
  check_close(back[0], Tensor::of<float>({2, 2}, {0, 1, 1, 0}));
  // The saturated ones: the codes themselves, -128 and 127.
  const auto code = through[1].data<float>(), step = back[1].data<float>();
  CHECK(code[0] + step[0] == doctest::Approx(-128).epsilon(1e-4));
  CHECK(code[1] + step[1] == doctest::Approx(127).epsilon(1e-4));
}

}  // namespace
}  // namespace onnxpress
