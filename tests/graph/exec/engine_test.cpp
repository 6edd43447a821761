#include "graph/exec/engine.h"
#include "graph/exec/unsupported.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

Tensor floats(Dims dims, std::vector<float> values) {
  return Tensor::of<float>(std::move(dims), values);
}

Tensor random_tensor(const Dims& dims, std::uint64_t seed) {
  Random random(seed);
  Tensor tensor(DType::float32, dims);
  for (float& value : tensor.mutable_data<float>()) value = static_cast<float>(random.normal());
  return tensor;
}

std::vector<Tensor> run(Engine& engine, std::vector<Tensor> inputs, Observer* observer = nullptr) {
  return engine.run(inputs, observer);
}

std::string error_of(Engine& engine, std::vector<Tensor> inputs) {
  try {
    engine.run(inputs);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<Type> types_of(const std::vector<Tensor>& tensors) {
  std::vector<Type> types;
  for (const Tensor& tensor : tensors) types.push_back(Type::of(tensor));
  return types;
}

constexpr const char* chain = R"(model ir=8 opset=17
input x: float32[n,4]
initializer w: float32[4,4] = random(1)
a = MatMul(x, w)
b = Relu(a)
c = Sigmoid(b)
d = Tanh(c)
e = Erf(d)
y: float32[n,4] = Add(e, b)
output y: float32[n,4]
)";

// A random graph over [2,6] values: elementwise operators and ones that forward their input.
std::string random_graph(std::uint64_t seed, bool all_outputs) {
  Random random(seed);
  std::string text =
      "model ir=8 opset=17\ninput v0: float32[2,6]\n"
      "initializer flat: int64[1] = {-1}\ninitializer back: int64[2] = {2,6}\n";
  const std::size_t nodes = 5 + random.below(25);
  std::size_t last = 0;
  const auto any = [&] { return fmt::format("v{}", random.below(last + 1)); };
  for (std::size_t i = 0; i < nodes; ++i) {
    const std::string target = fmt::format("v{}", last + 1);
    switch (random.below(5)) {
      case 0:
        text += fmt::format("{} = Add({}, {})\n", target, any(), any());
        break;
      case 1:
        text += fmt::format("{} = Tanh({})\n", target, any());
        break;
      case 2:
        text += fmt::format("{} = Identity({})\n", target, any());
        break;
      case 3:
        text +=
            fmt::format("r{0} = Reshape({1}, flat)\ns{0} = Neg(r{0})\n{2} = Reshape(s{0}, back)\n",
                        i, any(), target);
        break;
      default:
        text +=
            fmt::format("r{0} = Reshape({1}, flat)\n{2} = Reshape(r{0}, back)\n", i, any(), target);
    }
    ++last;
  }
  const auto output = [&](std::size_t i) {
    return i == 0 ? std::string() : fmt::format("output v{}: float32[2,6]\n", i);
  };
  if (all_outputs)
    for (std::size_t i = 1; i <= last; ++i) text += output(i);
  else
    text += output(last) + (last > 3 ? output(last / 2) : "");
  return text;
}

TEST_CASE("memory reuse changes no result") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto model = parse_model(random_graph(seed, false));
    const auto unshared_model = parse_model(random_graph(seed, true));
    Engine engine(*model), unshared(*unshared_model);
    const Tensor x = random_tensor({2, 6}, seed);
    const std::vector<Tensor> all = run(unshared, {x});
    for (int repeat = 0; repeat < 3; ++repeat) {  // the second run uses the memory of the first
      const std::vector<Tensor> found = run(engine, {x});
      for (std::size_t i = 0; i < found.size(); ++i) {
        const std::string& name = model->graph.outputs()[i]->name();
        const auto index = static_cast<std::size_t>(std::stoi(name.substr(1))) - 1;
        CHECK_MESSAGE(found[i].equals(all[index]), "seed ", seed, " output ", name);
      }
    }
  }
}

TEST_CASE("a chain takes less memory than its values together") {
  const auto model = parse_model(chain);
  Engine engine(*model, {.reference = true});
  const PlanSummary summary = engine.summary(types_of({random_tensor({64, 4}, 0)}));
  CHECK(summary.unshared_bytes == 5 * 64 * 4 * 4);  // a, b, c, d, e; y is the caller's
  CHECK(summary.arena_bytes == 3 * 64 * 4 * 4);
  CHECK(summary.dynamic_values == 0);
  REQUIRE(summary.steps.size() == 6);
  CHECK(summary.steps[0].op_type == "MatMul");
  CHECK(summary.steps[0].macs == 64 * 4 * 4);
  CHECK(summary.steps[1].backend == "reference");

  Engine fused(*model);
  const PlanSummary merged = fused.summary(types_of({random_tensor({64, 4}, 0)}));
  CHECK(merged.unshared_bytes == 64 * 4 * 4);  // b: the rest is one chain
  REQUIRE(merged.steps.size() == 2);
  CHECK(merged.steps[0].backend == "onednn");
  CHECK(merged.steps[1].backend == "elementwise");
}

TEST_CASE("on_step tells every executed step once a run, in order, with its work") {
  const auto model = parse_model(chain);
  std::vector<std::string> steps;
  double end = 0;
  std::int64_t macs = 0;
  Engine engine(*model, {.reference = true, .on_step = [&](const StepTiming& timing) {
    steps.push_back(std::string(timing.op_type) + ":" + std::string(timing.backend));
    CHECK(timing.start_us >= end);
    CHECK(timing.duration_us >= 0);
    end = timing.start_us + timing.duration_us;
    macs += timing.macs;
  }});
  run(engine, {random_tensor({8, 4}, 0)});
  REQUIRE(steps.size() == 6);
  CHECK(steps[0].starts_with("MatMul:"));
  CHECK(steps[5] == "Add:reference");
  CHECK(macs == 8 * 4 * 4);
  run(engine, {random_tensor({8, 4}, 1)});
  CHECK(steps.size() == 12);
}

TEST_CASE("outputs stay as they are when the engine runs again or goes") {
  const auto model = parse_model(chain);
  auto engine = std::make_unique<Engine>(*model);
  const Tensor first = run(*engine, {random_tensor({2, 4}, 1)})[0];
  const std::vector<float> values = first.to_floats();
  const Tensor second = run(*engine, {random_tensor({2, 4}, 2)})[0];
  engine.reset();
  CHECK(first.to_floats() == values);
  CHECK(second.to_floats() != values);
}

TEST_CASE("plans are kept by input shapes, the least recently used goes") {
  const auto model = parse_model(chain);
  Engine engine(*model, {.plans = 2});
  const auto run_batch = [&](std::int64_t n) { run(engine, {random_tensor({n, 4}, 0)}); };
  run_batch(1);
  run_batch(2);
  run_batch(1);
  CHECK(engine.plans_made() == 2);
  run_batch(3);  // 2 goes
  run_batch(1);
  CHECK(engine.plans_made() == 3);
  run_batch(2);
  CHECK(engine.plans_made() == 4);
}

struct Recorder final : Observer {
  std::map<std::string, int> seen;
  std::map<std::string, std::vector<float>> contents;
  bool wants(const Value& value) override { return value.name() != "unwanted"; }
  void observe(const Value& value, const Tensor& tensor) override {
    ++seen[value.name()];
    contents[value.name()] = tensor.to_floats();
  }
};

TEST_CASE("observers see inputs and every value once a run") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n,4]
initializer w: float32[4] = {1,2,3,4}
k = Neg(w)
s = Shape(x)
unwanted = Relu(x)
f = Identity(unwanted)
y: float32[n,4] = Add(f, k)
output y: float32[n,4]
output s: int64[2]
)");
  Engine engine(*model);
  Recorder recorder;
  const Tensor y = run(engine, {floats({1, 4}, {-1, 5, -1, 5})}, &recorder)[0];
  CHECK(recorder.seen ==
        std::map<std::string, int>{{"x", 1}, {"k", 1}, {"s", 1}, {"f", 1}, {"y", 1}});
  CHECK(recorder.contents["f"] == std::vector<float>{0, 5, 0, 5});
  CHECK(recorder.contents["k"] == std::vector<float>{-1, -2, -3, -4});
  CHECK(recorder.contents["s"] == std::vector<float>{1, 4});
  CHECK(y.to_floats() == std::vector<float>{-1, 3, -3, 1});
}

TEST_CASE("what depends on constants alone or reaches no output is not executed") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n,4]
initializer w: float32[4] = {1,2,3,4}
k = Neg(w)
s = Shape(x)
g = Cast(s) {to=1}
dead = Exp(x)
t = Reshape(x, s)
y: float32[n,4] = Mul(t, k)
output y: float32[n,4]
)");
  Engine engine(*model);
  const PlanSummary summary = engine.summary(types_of({random_tensor({3, 4}, 0)}));
  REQUIRE(summary.steps.size() == 2);
  CHECK(summary.steps[0].op_type == "Reshape");
  CHECK(summary.steps[1].op_type == "Mul");
}

TEST_CASE("reference kernels give the same bits on any number of threads") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2,3,32,32]
initializer w: float32[8,3,3,3] = random(1)
initializer v: float32[2048,32] = random(2)
a = Conv(x, w) {pads=[1,1,1,1], strides=[2,2]}
b = Relu(a)
c = Flatten(b)
y: float32[2,32] = MatMul(c, v)
output y: float32[2,32]
)");
  Engine one(*model, {.threads = 1, .reference = true});
  Engine four(*model, {.threads = 4, .reference = true});
  const Tensor x = random_tensor({2, 3, 32, 32}, 5);
  CHECK(run(one, {x})[0].equals(run(four, {x})[0]));
}

TEST_CASE("inputs are checked against what the model declares") {
  const auto model = parse_model(R"(model ir=8 opset=17
input a: float32[n,4]
input b: float32[n,?]
y: float32[n,4] = Add(a, b)
output y: float32[n,4]
)");
  Engine engine(*model);
  CHECK(run(engine, {random_tensor({2, 4}, 0), random_tensor({2, 1}, 1)})[0].dims() == Dims{2, 4});
  CHECK(error_of(engine, {random_tensor({2, 4}, 0)}) == "expected 2 inputs ('a', 'b'), found 1");
  CHECK(error_of(engine, {random_tensor({2, 3}, 0), random_tensor({2, 1}, 1)}) ==
        "input 'a': expected float32[n,4], found float32[2,3]");
  CHECK(error_of(engine, {random_tensor({2, 4}, 0), random_tensor({2}, 1)}) ==
        "input 'b': expected float32[n,?], found float32[2]");
  CHECK(
      error_of(engine, {random_tensor({2, 4}, 0).cast(DType::float64), random_tensor({2, 1}, 1)}) ==
      "input 'a': expected float32[n,4], found float64[2,4]");
  CHECK(error_of(engine, {random_tensor({2, 4}, 0), random_tensor({3, 1}, 1)}) ==
        "input 'b': expected float32[n,?] with n = 2 as in input 'a', found float32[3,1]");
}

TEST_CASE("an engine is refused for operators without a kernel, all of them named") {
  const auto model = parse_model(R"(model ir=8 opset=17 my.domain=3
input x: float32[4]
a = my.domain.Foo(x)
b = my.domain.Bar(a)
y: float32[4] = my.domain.Foo(b)
output y: float32[4]
)");
  CHECK(Engine::unsupported(*model) ==
        std::vector<std::string>{"Bar (my.domain 3)", "Foo (my.domain 3)"});
  CHECK_THROWS_WITH_AS(Engine{*model},
                       "the engine has no kernel for Bar of my.domain 3 (node of 'b' (my.domain.Bar)), Foo of my.domain 3 (node of 'a' "
                       "(my.domain.Foo))", UnsupportedModel);
}

TEST_CASE("an input with a default need not be given") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
input scale: float32[] = {3}
y: float32[2] = Mul(x, scale)
output y: float32[2]
)");
  Engine engine(*model);
  CHECK(run(engine, {floats({2}, {1, 2})})[0].to_floats() == std::vector<float>{3, 6});
}

TEST_CASE("outputs that are inputs, constants, or the same value twice") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
initializer c: float32[1] = {7}
i = Identity(x)
k = Identity(c)
output i: float32[2]
output k: float32[1]
)");
  Engine engine(*model);
  const std::vector<Tensor> found = run(engine, {floats({2}, {1, 2})});
  CHECK(found[0].to_floats() == std::vector<float>{1, 2});
  CHECK(found[1].to_floats() == std::vector<float>{7});
}

TEST_CASE("values of data-dependent size come from the pool") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[1]
input size: int64[1]
a = Expand(x, size)
b = Neg(a)
y: float32[n] = Add(b, b)
output y: float32[n]
)");
  Engine engine(*model);
  const auto expanded = [&](std::int64_t size) {
    const auto dims = Tensor::of<std::int64_t>({1}, std::vector<std::int64_t>{size});
    return run(engine, {floats({1}, {1}), dims})[0].to_floats();
  };
  CHECK(expanded(3) == std::vector<float>(3, -2));
  CHECK(expanded(1) == std::vector<float>(1, -2));
  CHECK(expanded(0).empty());
  CHECK(expanded(100) == std::vector<float>(100, -2));
  CHECK(engine.plans_made() == 1);
  const PlanSummary summary = engine.summary(
      std::vector<Type>{Type::tensor(DType::float32, {1}), Type::tensor(DType::int64, {1})});
  CHECK(summary.dynamic_values == 3);
  CHECK(summary.arena_bytes == 0);
}

TEST_CASE("an error names the node it came from and leaves the engine usable") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2,3]
input i: int64[1]
y: float32[1,3] = Gather(x, i) "pick"
output y: float32[1,3]
)");
  Engine engine(*model);
  const Tensor x = random_tensor({2, 3}, 0);
  const std::string what =
      error_of(engine, {x, Tensor::of<std::int64_t>({1}, std::vector<std::int64_t>{9})});
  CHECK_MESSAGE(what.find("node 'pick' (Gather)") != std::string::npos, what);
  CHECK(run(engine, {x, Tensor::of<std::int64_t>({1}, std::vector<std::int64_t>{1})})[0].dims() ==
        Dims{1, 3});
}

TEST_CASE("multiply-accumulates of a model") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n,3,8,8]
initializer w: float32[4,3,3,3] = random(1)
a = Conv(x, w)
b = Flatten(a)
initializer v: float32[144,10] = random(2)
y: float32[n,10] = MatMul(b, v)
output y: float32[n,10]
)");
  const MacCount count = count_macs(*model);
  CHECK(count.macs == 4 * 6 * 6 * 27 + 144 * 10);
  CHECK(count.unknown == 0);
}

TEST_CASE("kernels do not write to their inputs") {
  // The operand is an interior value that is read again afterwards.
  for (const char* product :
       {"Gemm(a, w) {alpha=2.0}", "com.microsoft.SkipLayerNormalization(a, w, b)"}) {
    CAPTURE(product);
    const auto model = parse_model(fmt::format(R"(model ir=10 opset=17 com.microsoft=1
input x: float32[2,2]
initializer w: float32[2,2] = {{1,0,0,1}}
initializer b: float32[2] = {{1,1}}
a = Relu(x)
p = {}
y = Add(a, b)
output p: float32[2,2]
output y: float32[2,2]
)",
                                               product));
    Engine engine(*model, {.reference = true});
    const std::vector<Tensor> found = run(engine, {floats({2, 2}, {1, 2, 3, 4})});
    CHECK(found[1].to_floats() == std::vector<float>{2, 3, 4, 5});
  }
}

}  // namespace
}  // namespace onnxpress
