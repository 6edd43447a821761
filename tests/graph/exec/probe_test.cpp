#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "graph/base/error.h"
#include "graph/exec/dataset.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

TEST_CASE("the same seed gives the same inputs, another one others") {
  const auto model = parse_model(
      "model ir=8 opset=17\ninput x: float32[n,3]\ninput z: float32[n]\n"
      "y = Relu(x)\noutput y\noutput z\n");
  const auto a = probe_inputs(*model, 7), b = probe_inputs(*model, 7), c = probe_inputs(*model, 8);
  CHECK(a[0].equals(b[0]));
  CHECK_FALSE(a[0].equals(c[0]));
  CHECK(a[0].dims() == Dims{2, 3});
  CHECK(a[1].dims() == Dims{2});
}

TEST_CASE("dims of inputs: fixed, symbolic, unknown") {
  const auto model = parse_model(
      "model ir=8 opset=17\ninput a: float32[batch,seq]\n"
      "input b: float32[batch,3,?,?]\ninput c: float32[seq]\n"
      "y = Relu(a)\noutput y\noutput b\noutput c\n");
  auto found = probe_inputs(*model, 0);
  CHECK(found[0].dims() == Dims{2, 8});
  CHECK(found[1].dims() == Dims{2, 3, 32, 32});
  CHECK(found[2].dims() == Dims{8});
  found = probe_inputs(*model, 0, {}, {{"c", {5}}});
  CHECK(found[0].dims() == Dims{2, 5});
  CHECK_THROWS_WITH_AS(probe_inputs(*model, 0, {}, {{"b", {2, 4, 8, 8}}}),
                       "input 'b': dims [2,4,8,8] do not fit float32[batch,3,?,?]", Error);
  CHECK_THROWS_WITH_AS(probe_inputs(*model, 0, {{"bb", {0, 1}}}),
                       "the model has no input 'bb'; did you mean 'b'?", Error);
}

bool within(const Tensor& tensor, double low, double high) {
  return std::ranges::all_of(tensor.to_floats(),
                             [&](float value) { return value >= low && value <= high; });
}

TEST_CASE("integers stay within what their consumers allow") {
  const auto model = parse_model(R"(model ir=8 opset=17
input tokens: int64[2,50]
input mask: int64[2,50]
input rate: int64[]
input shape: int64[2]
input image: uint8[2,50]
initializer table: float32[5,4] = random(1)
initializer known: int64[] = {16000}
initializer axis: int64[1] = {2}
wide = Unsqueeze(tokens, axis)
e = Gather(table, wide)
m = Cast(mask) {to=1}
q = Equal(rate, known)
r = Reshape(image, shape)
output e
output m
output q
output r
)");
  const std::vector<Tensor> found = probe_inputs(*model, 3);
  CHECK(within(found[0], 0, 4));
  CHECK_FALSE(within(found[0], 0, 3));
  CHECK(within(found[1], 0, 1));
  CHECK(found[2].to_ints() == std::vector<std::int64_t>{16000});
  CHECK(found[3].to_ints() == std::vector<std::int64_t>{2, 50});
  CHECK_FALSE(within(found[4], 0, 1));
  Engine engine(*model);
  CHECK(engine.run(found).size() == 4);
}

TEST_CASE("ranges override") {
  const auto model = parse_model(
      "model ir=8 opset=17\ninput x: float32[100]\ninput i: int32[100]\n"
      "y = Relu(x)\noutput y\noutput i\n");
  const auto found = probe_inputs(*model, 0, {{"x", {2, 3}}, {"i", {-5, -4}}});
  CHECK(within(found[0], 2, 3));
  CHECK(within(found[1], -5, -4));
}

TEST_CASE("what cannot be generated is an error") {
  const auto text =
      parse_model("model ir=8 opset=17\ninput x: string[2]\ny = Identity(x)\noutput y\n");
  CHECK_THROWS_WITH_AS(probe_inputs(*text, 0), "input 'x': cannot generate string[2]", Error);
  const auto rank = parse_model("model ir=8 opset=17\ninput x: float32\ny = Relu(x)\noutput y\n");
  CHECK_THROWS_WITH_AS(probe_inputs(*rank, 0), "input 'x': its rank is not known: give its dims",
                       Error);
  CHECK(probe_inputs(*rank, 0, {}, {{"x", {4}}})[0].dims() == Dims{4});
}

}  // namespace
}  // namespace onnxpress
