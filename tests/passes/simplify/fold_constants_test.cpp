#include <doctest/doctest.h>

#include <string>

#include "graph/base/random.h"
#include "graph/onnx/writer.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("Constant nodes and chains of constants become initializers") {
  check_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
c = Constant() {value=float32[2]{1,2}}
i = Constant() {value_ints=[2]}
f = Constant() {value_float=3.0}
d = Add(c, f)
e = Mul(d, c)
y = Add(x, e)
z = Reshape(y, i)
output z: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
initializer e: float32[2] = {4,10}
initializer i: int64[1] = {2}
y = Add(x, e)
z = Reshape(y, i)
output z: float32[2]
)");
}

TEST_CASE("shape computations of static dims fold, of dynamic ones stay") {
  const PassRun run = run_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[2,3,4]
initializer zero: int64[1] = {0}
initializer rest: int64[1] = {-1}
s = Shape(x)
n = Gather(s, zero)
t = Concat(n, rest) {axis=0}
y = Reshape(x, t)
output y: float32[2,12]
)");
  CHECK(run.outcome.changed);
  CHECK(run.after->graph.node_count() == 1);
  CHECK(run.outcome.counts["nodes"] == 3);

  check_unchanged("fold_constants", R"(model ir=8 opset=17
input x: float32[batch,3,4]
initializer zero: int64[1] = {0}
initializer rest: int64[1] = {-1}
s = Shape(x)
n = Gather(s, zero)
t = Concat(n, rest) {axis=0}
y = Reshape(x, t)
output y: float32[batch,12]
)");
}

TEST_CASE("a large result stays an operator, its small inputs fold") {
  const std::string filled = R"(model ir=8 opset=17
input x: float32[64,64]
initializer half: int64[2] = {32,32}
s = Add(half, half)
big = ConstantOfShape(s) {value=float32[1]{2}}
y = Add(x, big)
output y: float32[64,64]
)";
  SUBCASE("ConstantOfShape") {
    const PassRun run = run_pass("fold_constants", filled);
    CHECK(run.outcome.changed);
    CHECK(run.after->graph.node_count() == 2);
    CHECK(run.outcome.counts["kept"].get<int>() >= 1);
    CHECK(run.reason("fold_constants") == "folding it would grow the file");
  }
  SUBCASE("unless the file may grow by so much") {
    for (const char* pass : {"fold_constants", "simplify"}) {
      const PassRun folded = run_pass(pass + std::string("{growth=16384}"), filled);
      CHECK(folded.after->graph.node_count() == 1);
      CHECK(folded.after->graph.initializers().front()->constant()->dims() == Dims{64, 64});
      CHECK(run_pass(pass + std::string("{growth=16000}"), filled).after->graph.node_count() == 2);
    }
  }
  SUBCASE("Expand") {
    const PassRun run = run_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[64,64]
initializer one: float32[1] = {1}
r = Shape(x)
s = Abs(r)
big = Expand(one, s)
y = Add(x, big)
output y: float32[64,64]
)");
    CHECK(run.outcome.changed);
    CHECK(run.after->graph.node_count() == 2);
  }
  SUBCASE("Tile") {
    check_unchanged("fold_constants", R"(model ir=8 opset=17
input x: float32[64,64]
initializer row: float32[1,64] = random(3)
initializer times: int64[2] = {64,1}
big = Tile(row, times)
y = Add(x, big)
output y: float32[64,64]
)");
  }
  SUBCASE("small integers take fewer bytes in the file than the floats they become") {
    check_unchanged("fold_constants", R"(model ir=8 opset=17
input x: float32[600]
initializer codes: int64[600] = random(5,0,100)
f = Cast(codes) {to=1}
y = Add(x, f)
output y: float32[600]
)");
  }
  SUBCASE("a small result is not worth any amount of memory") {
    const PassRun run = run_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[1]
input c: bool[]
initializer shape: int64[1] = {1000000000}
y = If(c) {then_branch=graph {
  big = ConstantOfShape(shape)
  s = ReduceSum(big)
  a = Add(x, s)
  output a
}, else_branch=graph {
  b = Neg(x)
  output b
}}
output y: float32[1]
)",
                                 {.seed = 1,
                                  .calibration = nullptr,
                                  .training = nullptr,
                                  .input_ranges = {{"c", {0, 0}}}});
    CHECK_FALSE(run.outcome.changed);
    CHECK(run.outcome.counts["not_computed"].get<int>() == 1);
  }
}

TEST_CASE("quantized constants stay quantized") {
  check_unchanged("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
initializer q: int8[2] = {1,2}
initializer s: float32[] = {0.5}
w = DequantizeLinear(q, s)
y = Add(x, w)
output y: float32[2]
)");
  check_unchanged("fold_constants", R"(model ir=8 opset=17 com.microsoft=1
input x: float32[2]
initializer q: int8[2] = {1,2}
initializer s: float32[] = {0.5}
initializer z: int8[] = {0}
w = com.microsoft.DequantizeLinear(q, s, z)
y = Add(x, w)
output y: float32[2]
)");
}

TEST_CASE("bodies of If fold, with constants of the graph around them") {
  const PassRun run = run_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
initializer w: float32[2] = {1,2}
y = If(c) {then_branch=graph {
  k = Constant() {value=float32[2]{3,4}}
  s = Add(k, w)
  t = Add(x, s)
  output t
}, else_branch=graph {
  e = Neg(x)
  output e
}}
output y: float32[2]
)");
  CHECK(run.outcome.changed);
  CHECK(to_text(*run.after).find("{4,6}") != std::string::npos);
  CHECK(to_text(*run.after).find("Constant()") == std::string::npos);
}

TEST_CASE("a constant that a nested graph reads is folded where it is") {
  const PassRun run = run_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
input c: bool[]
k = Constant() {value=float32[2]{3,4}}
y = If(c) {then_branch=graph {
  t = Add(x, k)
  output t
}, else_branch=graph {
  e = Neg(x)
  output e
}}
output y: float32[2]
)");
  CHECK(run.outcome.changed);
  CHECK(run.after->graph.node_count() == 1);
}

TEST_CASE("outputs keep their producer") {
  check_unchanged("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
k = Constant() {value=float32[2]{3,4}}
y = Neg(x)
output y: float32[2]
output k: float32[2]
)");
}

TEST_CASE("values that differ from run to run are no constants") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
r = RandomNormal() {shape=[2]}
z = RandomUniformLike(r)
s = Add(r, z)
y = Add(x, s)
output y: float32[2]
)");
  const Pipeline pipeline = Pipeline::parse("fold_constants");
  ThreadPool pool(1);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool};
  CHECK_FALSE(pipeline.steps[0].pass->run(*model, context).changed);
  CHECK(model->graph.node_count() == 4);
}

TEST_CASE("what fails at run time keeps its failure") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
initializer table: float32[2] = {1,2}
initializer at: int64[1] = {7}
g = Gather(table, at)
y = Add(x, g)
output y: float32[2]
)");
  const Pipeline pipeline = Pipeline::parse("fold_constants");
  ThreadPool pool(1);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool};
  CHECK_FALSE(pipeline.steps[0].pass->run(*model, context).changed);
}

TEST_CASE("IR 3: overridable inputs are no constants; folded ones count as inputs too") {
  const PassRun run = run_pass("fold_constants", R"(model ir=3 opset=8
input x: float32[2]
input w: float32[2] = {1,2}
n = Neg(w)
a = Constant() {value=float32[2]{3,4}}
b = Neg(a)
c = Abs(b)
s = Add(n, c)
y = Add(x, s)
output y: float32[2]
)");
  CHECK(run.outcome.changed);
  CHECK(run.after->graph.find("n") != nullptr);
  CHECK(run.after->graph.find("a") == nullptr);
  CHECK(serialized_size(*run.after) <= serialized_size(*run.before));
}

TEST_CASE("function bodies stay as they are") {
  check_unchanged("fold_constants", R"(model ir=8 opset=17 local=1
input x: float32[2]
y = local.AddTwo(x)
output y: float32[2]
function local.AddTwo() opset=17 {
  input v
  k = Constant() {value=float32[1]{1}}
  t = Add(k, k)
  r = Add(v, t)
  output r
}
)");
}

// Constants of integers and floats, operators that keep, shrink and grow them, and readers at
// random.
std::string random_constants(Random& random, int ir, int opset) {
  const std::string head =
      "model ir=" + std::to_string(ir) + " opset=" + std::to_string(opset) + "\n";
  std::string text = head + "input x: float32[1]\n", nodes;
  std::vector<std::pair<std::string, std::int64_t>> values;  // name, length
  const auto any = [&]() -> const std::pair<std::string, std::int64_t>& {
    return values[random.below(values.size())];
  };
  for (int i = 0; i < 3; ++i) {
    const std::int64_t length = 1 + static_cast<std::int64_t>(random.below(40));
    const std::string name = fmt::format("c{}", i);
    const std::string type = fmt::format("float32[{}]", length);
    if (random.below(2)) {
      text += "initializer " + name + ": " + type + " = random(" +
              std::to_string(random.below(99)) + ")\n";
    } else {
      const std::string ints = fmt::format("int64[{}]", length);
      text += "initializer " + name + "_i: " + ints + " = random(" +
              std::to_string(random.below(99)) + ",-3,200)\n";
      nodes += name + " = Cast(" + name + "_i) {to=1}\n";
    }
    values.emplace_back(name, length);
  }
  text += "initializer shape: int64[1] = {" + std::to_string(1 + random.below(80)) + "}\n";
  const int count = 4 + static_cast<int>(random.below(10));
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("n{}", i);
    const auto [input, length] = any();
    switch (random.below(6)) {
      case 0:
        nodes += name + " = Neg(" + input + ")\n";
        values.emplace_back(name, length);
        break;
      case 1: {
        const auto [other, more] = any();
        nodes += name + " = Concat(" + input + ", " + other + ") {axis=0}\n";
        values.emplace_back(name, length + more);
        break;
      }
      case 2:
        nodes += name + " = ReduceMean(" + input + ") {keepdims=1}\n";
        values.emplace_back(name, 1);
        break;
      case 3:
        nodes += name + " = ConstantOfShape(shape)\n" + name + "m = ReduceMax(" + name +
                 ") {keepdims=1}\n";
        values.emplace_back(name + "m", 1);
        break;
      case 4:
        nodes += name + " = Constant() {value=float32[3]{1,2,3}}\n";
        values.emplace_back(name, 3);
        break;
      default:
        nodes += name + " = Mul(" + input + ", " + input + ")\n";
        values.emplace_back(name, length);
        break;
    }
  }
  const int outputs = 1 + static_cast<int>(random.below(3));
  std::string tail;
  for (int i = 0; i < outputs; ++i) {
    const std::string name = fmt::format("y{}", i);
    nodes += name + " = Add(x, " + any().first + ")\n";
    tail += "output " + name + ": float32[?]\n";
  }
  return text + nodes + tail;
}

TEST_CASE("files never grow") {
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    Random random(seed);
    const bool old = random.below(4) == 0;
    const std::string text = random_constants(random, old ? 3 : 8, old ? 9 : 13);
    CAPTURE(text);
    const PassRun run = run_pass("fold_constants", text);
    CHECK(serialized_size(*run.after) <= serialized_size(*run.before));
    const PassRun again = run_pass("fold_constants", run.after->clone());
    CHECK(serialized_size(*again.after) <= serialized_size(*again.before));
  }
}

TEST_CASE("what is computed from quantized constants stays too, but for its shape") {
  check_unchanged("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
initializer q: int8[1,2] = {1,2}
initializer s: float32[] = {0.5}
initializer n: int64[1] = {2}
w = DequantizeLinear(q, s)
t = Transpose(w)
r = Reshape(t, n)
y = Add(x, r)
output y: float32[2]
)");
  CHECK(run_pass("fold_constants", R"(model ir=8 opset=17
input x: float32[2]
initializer q: int8[1,2] = {1,2}
initializer s: float32[] = {0.5}
w = DequantizeLinear(q, s)
dims_of_the_dequantized = Shape(w)
the_same = Abs(dims_of_the_dequantized)
y = Reshape(x, the_same)
z = Add(y, w)
output z: float32[1,2]
)")
            .outcome.counts["nodes"] == 2);
}

TEST_CASE("function bodies fold, but for what is a Constant node already or depends on the call") {
  const PassRun run = run_pass("fold_constants", R"(model ir=8 opset=17 local=1
input x: float32[2]
y = local.Act(x) {alpha=0.5}
output y: float32[2]
function local.Act(alpha) opset=17 {
  input v
  a_first_constant = Constant() {value=float32[2]{1,2}}
  a_second_constant = Constant() {value=float32[2]{3,4}}
  their_sum_which_is_constant = Add(a_first_constant, a_second_constant)
  their_negated_sum = Neg(their_sum_which_is_constant)
  e = Elu(a_first_constant) {alpha=@alpha(float)}
  r = Add(v, their_negated_sum)
  s = Add(r, e)
  output s
}
)");
  CHECK(run.outcome.counts["nodes"] == 3);
  CHECK(run.after->functions[0]->body.node_count() == 4);
  CHECK_FALSE(run_pass("fold_constants", run.after->clone()).outcome.changed);
}

TEST_CASE("Constant nodes of bodies stay up to IR 3, whose bodies have no initializers") {
  check_unchanged("fold_constants", R"(model ir=3 opset=9
input x: float32[2]
input c: bool[]
y = If(c) {then_branch=graph {
  k = Constant() {value=float32[2]{1,2}}
  a = Add(x, k)
  output a
}, else_branch=graph {
  b = Neg(x)
  output b
}}
output y: float32[2]
)");
}

}  // namespace
}  // namespace onnxpress
