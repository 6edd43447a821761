// If, Loop and functions on the engine: captured values, nested graphs, memory between them.
#include <doctest/doctest.h>

#include <map>
#include <string>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

Tensor floats(Dims dims, std::vector<float> values) {
  return Tensor::of<float>(std::move(dims), values);
}

std::vector<Tensor> run(Engine& engine, std::vector<Tensor> inputs) { return engine.run(inputs); }

TEST_CASE("branches read values of the graph around them") {
  const auto model = parse_model(R"(model ir=8 opset=17
input c: bool[]
input x: float32[n]
a = Neg(x)
b = Exp(x)
z = If(c) {then_branch=graph {
  t = Add(a, x)
  output t
}, else_branch=graph {
  output b
}}
r = Relu(a)
y: float32[n] = Add(z, r)
output y: float32[n]
)");
  Engine engine(*model);
  const Tensor x = floats({2}, {0, -1});
  for (int repeat = 0; repeat < 2; ++repeat) {
    CHECK(run(engine, {Tensor::scalar(true), x})[0].to_floats() == std::vector<float>{0, 1});
    const std::vector<float> found = run(engine, {Tensor::scalar(false), x})[0].to_floats();
    CHECK(found[0] == doctest::Approx(1));
    CHECK(found[1] == doctest::Approx(1 + 0.36787944));
  }
}

TEST_CASE("a nested branch reads across both graphs around it") {
  const auto model = parse_model(R"(model ir=8 opset=17
input c: bool[]
input d: bool[]
input x: float32[2]
a = Neg(x)
y: float32[2] = If(c) {then_branch=graph {
  p = Mul(a, a)
  q = If(d) {then_branch=graph {
    u = Add(p, x)
    output u
  }, else_branch=graph {
    v = Sub(a, p)
    output v
  }}
  output q
}, else_branch=graph {
  output a
}}
output y: float32[2]
)");
  Engine engine(*model);
  const Tensor x = floats({2}, {2, 3}), yes = Tensor::scalar(true), no = Tensor::scalar(false);
  CHECK(run(engine, {yes, yes, x})[0].to_floats() == std::vector<float>{6, 12});
  CHECK(run(engine, {yes, no, x})[0].to_floats() == std::vector<float>{-6, -12});
  CHECK(run(engine, {no, no, x})[0].to_floats() == std::vector<float>{-2, -3});
}

TEST_CASE("a loop whose state grows in every step") {
  const auto model = parse_model(R"(model ir=8 opset=17
input n: int64[]
input x: float32[1]
initializer go: bool[] = {1}
two = Add(x, x)
y, _ = Loop(n, go, x) {body=graph {
  input i: int64[]
  input k: bool[]
  input s: float32[?]
  k2 = Identity(k)
  s2 = Concat(s, two) {axis=0}
  m = Neg(two)
  output k2
  output s2
  output m
}}
output y: float32[?]
)");
  Engine engine(*model);
  for (std::int64_t trips : {0, 3, 20}) {  // 20 steps go beyond the plans kept by shape
    const std::vector<float> found =
        run(engine, {Tensor::scalar(trips), floats({1}, {1})})[0].to_floats();
    REQUIRE(found.size() == static_cast<std::size_t>(trips) + 1);
    CHECK(found[0] == 1);
    for (std::size_t i = 1; i < found.size(); ++i) CHECK(found[i] == 2);
  }
}

TEST_CASE("a loop that runs no step gives scan outputs of the dims that are known") {
  const auto model = parse_model(R"(model ir=8 opset=17
input n: int64[]
input x: float32[rows,4]
initializer go: bool[] = {1}
y, scan = Loop(n, go, x) {body=graph {
  input i: int64[]
  input k: bool[]
  input s: float32[rows,4]
  k2 = Identity(k)
  s2 = Add(s, s)
  m = Neg(s2)
  output k2
  output s2
  output m: float32[rows,4]
}}
output y: float32[rows,4]
output scan: float32[steps,rows,4]
)");
  Engine engine(*model);
  const Tensor x = floats({1, 4}, {1, 2, 3, 4});
  const auto found = run(engine, {Tensor::scalar(std::int64_t{0}), x});
  CHECK(found[0].to_floats() == x.to_floats());
  CHECK(found[1].size() == 0);
  CHECK(found[1].dim(2) == 4);
  CHECK(run(engine, {Tensor::scalar(std::int64_t{2}), x})[1].dims() == Dims{2, 1, 4});
}

struct Counter final : Observer {
  std::map<std::string, int> seen;
  bool wants(const Value&) override { return true; }
  void observe(const Value& value, const Tensor&) override { ++seen[value.name()]; }
};

TEST_CASE("observers see a subgraph's values once per step") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[3,2]
initializer zero: float32[2] = zeros
last: float32[2], all: float32[3,2] = Scan(zero, x) {num_scan_inputs=1, body=graph {
  input s: float32[2]
  input r: float32[2]
  t = Add(s, r)
  u = Identity(t)
  output t
  output u
}}
output last: float32[2]
output all: float32[3,2]
)");
  Engine engine(*model);
  Counter counter;
  const std::vector<Tensor> inputs{floats({3, 2}, {1, 2, 3, 4, 5, 6})};
  const std::vector<Tensor> found = engine.run(inputs, &counter);
  CHECK(found[0].to_floats() == std::vector<float>{9, 12});
  CHECK(found[1].to_floats() == std::vector<float>{1, 2, 4, 6, 9, 12});
  CHECK(counter.seen["t"] == 3);
  CHECK(counter.seen["x"] == 1);
  CHECK(counter.seen["all"] == 1);
}

TEST_CASE("functions run inlined") {
  const auto model = parse_model(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.Leaky(x) {alpha=0.5}
y: float32[2] = local.Leaky(a)
output y: float32[2]
function local.Leaky(alpha=0.25) opset=17 {
  input v
  r = LeakyRelu(v) {alpha=@alpha(float)}
  output r
}
)");
  Engine engine(*model);
  CHECK(run(engine, {floats({2}, {-8, 8})})[0].to_floats() == std::vector<float>{-1, 8});
  CHECK(engine.model().functions.empty());
}

}  // namespace
}  // namespace onnxpress
