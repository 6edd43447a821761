#include <doctest/doctest.h>

#include <string>

#include "passes/common/min_cut.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::size_t count(const Model& model, std::string_view op = "Transpose") {
  std::size_t found = 0;
  model.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) found += node->is(op);
  });
  return found;
}

// So many Transposes are left, and a second run changes nothing.
PassRun check_left(const std::string& text, std::size_t left) {
  CAPTURE(text);
  PassRun run = run_pass("sink_transposes", text);
  CAPTURE(to_text(*run.after));
  CHECK(count(*run.after) == left);
  CHECK(run.outcome.changed == (count(*run.before) != left));
  CHECK_FALSE(run_pass("sink_transposes", run.after->clone()).outcome.changed);
  return run;
}

std::string opset(int version) { return "model ir=8 opset=" + std::to_string(version) + "\n"; }

// `between` takes a, channels last, to b; both ends are channels first.
std::string sandwich(const std::string& between, const std::string& constants = "",
                     int version = 13, const std::string& input = "float32[2,3,4,5]") {
  return opset(version) + "input x: " + input + "\n" + constants +
         "a = Transpose(x) {perm=[0,2,3,1]}\n" + between +
         "y = Transpose(b) {perm=[0,3,1,2]}\noutput y: float32\n";
}

TEST_CASE("text in, text out") {
  check_pass("sink_transposes", R"(model ir=8 opset=13
input x: float32[1,2,1,3]
initializer bias: float32[2] = {1,2}
a = Transpose(x) {perm=[0,2,3,1]} "first"
b = Add(a, bias) "bias"
c = Relu(b) "relu"
y = Transpose(c) {perm=[0,3,1,2]} "last"
output y: float32[1,2,1,3]
)",
             R"(model ir=8 opset=13
input x: float32[1,2,1,3]
initializer bias_1: float32[2,1,1] = {1,2}
bias_2 = Add(x, bias_1) "bias"
y = Relu(bias_2) "relu"
output y: float32[1,2,1,3]
)");
}

TEST_CASE("operators that Transposes cancel across") {
  for (const char* op : {"Relu", "Sigmoid", "Exp", "Abs", "Neg", "Floor", "Softplus", "LeakyRelu",
                         "HardSigmoid", "Identity", "Erf"})
    check_left(sandwich("b = " + std::string(op) + "(a)\n"), 0);
  check_left(sandwich("b = Clip(a, l)\n", "initializer l: float32[] = {0.5}\n"), 0);
  check_left(sandwich("c = Cast(a) {to=9}\nd = Not(c)\nb = Cast(d) {to=1}\n"), 0);
  for (const char* op : {"Add", "Mul", "Sub", "Div", "Max", "Pow"}) {
    const std::string node = "b = " + std::string(op) + "(a, k)\n";
    for (const char* dims : {"[3]", "[1,3]", "[4,5,3]", "[1,1,1,3]", "[]", "[1]", "[5,1]"})
      check_left(
          sandwich(node, "initializer k: float32" + std::string(dims) + " = random(1,0.5,2)\n"), 0);
  }
  check_left(sandwich("m = ReduceMean(a) {axes=[1,2]}\nb = Mul(a, m)\n"), 0);
  check_left(sandwich("m = ReduceMax(a) {axes=[-1], keepdims=1}\nb = Sub(a, m)\n"), 0);
  check_left(
      sandwich("b = Concat(a, a, k) {axis=3}\n", "initializer k: float32[2,4,5,1] = random(1)\n"),
      0);
  check_left(sandwich("c, d = Split(a, s) {axis=-1}\nb = Concat(d, c) {axis=-1}\n",
                      "initializer s: int64[2] = {1,2}\n"),
             0);
  check_left(sandwich("b = Slice(a, s, e)\n",
                      "initializer s: int64[2] = {0,1}\ninitializer e: int64[2] = {2,3}\n"),
             0);
  check_left(sandwich("b = Slice(a, s, e, i, t)\n",
                      "initializer s: int32[1] = {2}\ninitializer e: int32[1] = {0}\n"
                      "initializer i: int32[1] = {-1}\ninitializer t: int32[1] = {-1}\n"),
             0);
  check_left(
      sandwich("b = Pad(a, p, v)\n",
               "initializer p: int64[8] = {0,1,2,0,0,3,0,1}\ninitializer v: float32[] = {4}\n"),
      0);
  check_left(sandwich("b = Pad(a, p, _, i)\n",
                      "initializer p: int64[2] = {1,2}\ninitializer i: int64[1] = {2}\n", 18),
             0);
  for (const char* axis : {"-1", "3", "1"})
    check_left(sandwich("b = Softmax(a) {axis=" + std::string(axis) + "}\n"), 0);
  check_left(sandwich("c = Squeeze(a, i)\nb = Unsqueeze(c, i)\n", "initializer i: int64[1] = {1}\n",
                      13, "float32[2,3,1,5]"),
             0);
  check_left(
      sandwich("q = QuantizeLinear(a, s, z) {axis=3}\nb = DequantizeLinear(q, s, z) {axis=3}\n",
               "initializer s: float32[3] = {0.1,0.2,0.3}\ninitializer z: int8[3] = {0,1,2}\n"),
      0);
  check_left(sandwich("q = QuantizeLinear(a, s)\nb = DequantizeLinear(q, s)\n",
                      "initializer s: float32[] = {0.1}\n"),
             0);
  check_left(
      sandwich(
          "b = Resize(a, _, s) {mode=\"nearest\", coordinate_transformation_mode=\"asymmetric\"}\n",
          "initializer s: float32[4] = {1,2,2,1}\n"),
      0);
  check_left(sandwich("b = Resize(a, _, _, s) {mode=\"linear\"}\n",
                      "initializer s: int64[4] = {2,6,5,3}\n"),
             0);
  check_left(sandwich("b = Tile(a, r)\n", "initializer r: int64[4] = {1,2,1,3}\n"), 0);
  check_left(sandwich("b = Expand(a, r)\n", "initializer r: int64[4] = {2,4,5,3}\n"), 0);
  check_left(sandwich("b = CumSum(a, i)\n", "initializer i: int32[] = {2}\n"), 0);
  check_left(sandwich("b = Gather(a, i) {axis=3}\n", "initializer i: int64[2] = {2,0}\n"), 0);
  check_left(
      sandwich("c = Equal(a, k)\nb = Where(c, a, k)\n", "initializer k: float32[3] = {1,2,3}\n"),
      0);
  check_left(sandwich("b = PRelu(a, k)\n", "initializer k: float32[3] = {1,2,3}\n"), 0);
}

TEST_CASE("older spellings") {
  check_left(sandwich("b = Slice(a) {axes=[3], starts=[1], ends=[3]}\n", "", 9), 0);
  check_left(sandwich("b = Slice(a) {starts=[0,1], ends=[2,3]}\n", "", 9), 0);
  check_left(sandwich("b = Pad(a) {pads=[0,1,2,0,0,3,0,1]}\n", "", 9), 0);
  check_left(sandwich("b = Softmax(a) {axis=3}\n", "", 11), 2);
  check_left(sandwich("c = Squeeze(a) {axes=[1]}\nb = Unsqueeze(c) {axes=[1]}\n", "", 11,
                      "float32[2,3,1,5]"),
             0);
  check_left(sandwich("b = Upsample(a) {scales=[1.0,2.0,2.0,1.0]}\n", "", 8), 0);
  check_left(sandwich("b = Upsample(a, s)\n", "initializer s: float32[4] = {1,2,2,1}\n", 9), 0);
  check_left(sandwich("b = ReduceSum(a, i)\n", "initializer i: int64[2] = {1,2}\n", 18), 0);
  check_left(sandwich("m = ReduceL2(a, i)\nb = Div(a, m)\n", "initializer i: int64[1] = {3}\n", 18),
             0);
  check_left(sandwich("b = Add(a, a) {broadcast=1}\n", "", 6), 0);
  check_left(
      sandwich("b = Add(a, k) {broadcast=1, axis=3}\n", "initializer k: float32[3] = {1,2,3}\n", 6),
      2);
}

TEST_CASE("a Transpose goes where what is left has no order") {
  check_left(opset(13) +
                 "input x: float32[2,3,4]\na = Transpose(x) {perm=[1,0,2]}\ny = ReduceMax(a) "
                 "{keepdims=0}\n"
                 "output y: float32[]\n",
             0);
  check_left(opset(13) +
                 "input x: float32[2,3,4,5]\na = Transpose(x) {perm=[0,2,3,1]}\n"
                 "y = ReduceMean(a) {axes=[1,2], keepdims=0}\noutput y: float32[2,3]\n",
             0);
  check_left(opset(13) +
                 "input x: float32[2,3,1,1]\ninitializer i: int64[2] = {1,2}\n"
                 "a = Transpose(x) {perm=[0,2,3,1]}\ny = Squeeze(a, i)\noutput y: float32[2,3]\n",
             0);
}

TEST_CASE("reductions whose sums would be made in another order stay") {
  const std::string ordered = opset(13) +
                              "initializer i: int64[2] = {1,2}\ninput x: float32[2,3,4]\n"
                              "a = Transpose(x) {perm=[0,2,1]}\n";
  check_left(ordered + "y = ReduceSum(a, i) {keepdims=0}\noutput y: float32[2]\n", 1);
  check_left(ordered + "y = ReduceMax(a) {axes=[1,2], keepdims=0}\noutput y: float32[2]\n", 0);
}

TEST_CASE("a convolution network with channels last") {
  const std::string text = opset(13) + R"(input x: float32[n,8,8,3]
initializer w1: float32[4,3,3,3] = random(1)
initializer w2: float32[4,4,3,3] = random(2)
initializer b: float32[4] = random(3)
a = Transpose(x) {perm=[0,3,1,2]}
c = Conv(a, w1) {pads=[1,1,1,1]}
d = Transpose(c) {perm=[0,2,3,1]}
e = Add(d, b)
f = Relu(e)
g = Transpose(f) {perm=[0,3,1,2]}
h = Conv(g, w2) {pads=[1,1,1,1]}
i = Transpose(h) {perm=[0,2,3,1]}
j = Add(i, f)
k = Sigmoid(j)
y = ReduceMean(k) {axes=[1,2], keepdims=0}
output y: float32[n,4]
)";
  const PassRun run = check_left(text, 1);
  CHECK(run.outcome.counts["transposes_removed"] == 3);
}

TEST_CASE("across a Reshape go the axes that it keeps together") {
  // A channel shuffle whose halves are picked.
  check_left(opset(13) + R"(input x: float32[1,48,6,4]
initializer s: int64[3] = {24,2,24}
initializer t: int64[5] = {2,-1,24,6,4}
initializer i: int64[] = {0}
initializer j: int64[] = {1}
a = Reshape(x, s)
b = Transpose(a) {perm=[1,0,2]}
c = Reshape(b, t)
y = Gather(c, i) {axis=0}
z = Gather(c, j) {axis=0}
output y: float32[1,24,6,4]
output z: float32[1,24,6,4]
)",
             0);
  check_left(opset(13) +
                 "input x: float32[n,3,4,5]\ninitializer s: int64[3] = {0,20,3}\na = Transpose(x) "
                 "{perm=[0,2,3,1]}\n"
                 "b = Reshape(a, s)\ny = Transpose(b) {perm=[0,2,1]}\noutput y: float32[n,3,20]\n",
             0);
  check_left(opset(13) +
                 "input x: float32[2,3,4,5]\ninitializer s: int64[3] = {2,12,5}\na = Transpose(x) "
                 "{perm=[0,2,3,1]}\n"
                 "b = Reshape(a, s)\ny = Transpose(b) {perm=[0,2,1]}\noutput y: float32[2,5,12]\n",
             2);
  // Only axes of size 1 change places.
  check_left(opset(13) +
                 "input x: float32[2,3,1,1]\ninitializer s: int64[2] = {-1,3}\na = Transpose(x) "
                 "{perm=[0,2,3,1]}\n"
                 "y = Reshape(a, s)\noutput y: float32[2,3]\n",
             0);
  check_left(opset(13) +
                 "input x: float32[n,3,1,1]\na = Transpose(x) {perm=[0,2,3,1]}\ny = Flatten(a)\n"
                 "output y: float32[n,3]\n",
             0);
  check_left(opset(13) +
                 "input x: float32[n,3,1,2]\na = Transpose(x) {perm=[0,2,3,1]}\ny = Flatten(a)\n"
                 "output y: float32[n,6]\n",
             1);
}

TEST_CASE("unequal permutations are composed") {
  const PassRun run =
      check_left(opset(13) +
                     "input x: float32[2,3,4]\na = Transpose(x) {perm=[1,2,0]}\nb = Relu(a)\n"
                     "y = Transpose(b) {perm=[0,2,1]}\noutput y: float32[3,2,4]\n",
                 1);
  CHECK(to_text(*run.after).find("{perm=[1,0,2]}") != std::string::npos);
}

TEST_CASE("what is read in both orders gets one Transpose, and no more than there were") {
  // The output keeps its order; the three others go.
  check_left(opset(13) + R"(input x: float32[2,3,4]
a = Transpose(x) {perm=[0,2,1]}
b = Relu(a)
c = Transpose(b) {perm=[0,2,1]}
d = Exp(b)
e = Transpose(d) {perm=[0,2,1]}
output b: float32[2,4,3]
output c: float32[2,3,4]
output e: float32[2,3,4]
)",
             1);
  // As many as before: nothing is moved.
  check_left(opset(13) + R"(input x: float32[2,3,4]
a = Transpose(x) {perm=[0,2,1]}
b = Relu(a)
output b: float32[2,4,3]
)",
             1);
}

TEST_CASE("operands of fewer axes that are not constant stay") {
  check_left(opset(13) +
                 "input x: float32[2,3,4]\ninput k: float32[3]\na = Transpose(x) {perm=[0,2,1]}\nb "
                 "= Add(a, k)\n"
                 "y = Transpose(b) {perm=[0,2,1]}\noutput y: float32[2,3,4]\n",
             2);
  check_left(opset(13) +
                 "input x: float32[2,3,4]\ninput k: float32[1]\na = Transpose(x) {perm=[0,2,1]}\nb "
                 "= Add(a, k)\n"
                 "y = Transpose(b) {perm=[0,2,1]}\noutput y: float32[2,3,4]\n",
             0);
  check_left(opset(13) +
                 "input x: float32[2,3,4]\ninput k: float32[2,1,3]\na = Transpose(x) "
                 "{perm=[0,2,1]}\nb = Add(a, k)\n"
                 "y = Transpose(b) {perm=[0,2,1]}\noutput y: float32[2,3,4]\n",
             1);
}

TEST_CASE("constants that others read too") {
  const auto text = [](const std::string& dims) {
    return opset(13) + "input x: float32[2,16,4]\ninitializer k: float32" + dims +
           " = random(1)\n"
           "a = Transpose(x) {perm=[0,2,1]}\nb = Add(a, k)\ny = Transpose(b) {perm=[0,2,1]}\n"
           "z = Neg(k)\noutput y: float32[2,16,4]\noutput z: float32" +
           dims + "\n";
  };
  // A copy of a small one takes less than what goes.
  check_left(text("[4,1]"), 0);
  // A copy of a large one would cost its size.
  check_left(text("[2,4,16]"), 2);
}

TEST_CASE("batches of products may change places, rows and columns may not") {
  const std::string weights =
      "initializer w: float32[4,5] = random(1)\ninitializer v: float32[5] = random(2)\n";
  check_left(opset(13) + "input x: float32[2,3,4]\n" + weights +
                 "a = Transpose(x) {perm=[1,0,2]}\nb = MatMul(a, w)\nc = Add(b, v)\ny = "
                 "Transpose(c) {perm=[1,0,2]}\n"
                 "output y: float32[2,3,5]\n",
             0);
  check_left(
      opset(13) + "input x: float32[2,4,3]\n" + weights +
          "a = Transpose(x) {perm=[0,2,1]}\nb = MatMul(a, w)\ny = Transpose(b) {perm=[0,2,1]}\n"
          "output y: float32[2,5,3]\n",
      2);
}

TEST_CASE("inside the body of an If, and of a function, what is known suffices or it stays") {
  const PassRun run = run_pass("sink_transposes", R"(model ir=8 opset=13 local=1
input x: float32[2,3,4]
input c: bool[]
u = local.F(x)
z = If(c) {then_branch=graph {
  a = Transpose(u) {perm=[0,2,1]}
  b = Relu(a)
  d = Transpose(b) {perm=[0,2,1]}
  output d
}, else_branch=graph {
  e = Transpose(u) {perm=[0,2,1]}
  f = Transpose(e) {perm=[0,2,1]}
  output f
}}
output z: float32[2,3,4]
function local.F() opset=13 {
  input v
  a = Transpose(v) {perm=[0,2,1]}
  b = Sigmoid(a)
  d = Add(b, a)
  e = Exp(d)
  f = Sigmoid(a)
  g = Transpose(f) {perm=[0,2,1]}
  output g
}
)");
  const std::string text = to_text(*run.after);
  CHECK(run.outcome.counts["sink_transposes"] >= 2);
  CAPTURE(text);
  CHECK(count(*run.after) <= 3);
}

TEST_CASE("why one stays") {
  const PassRun run =
      check_left(opset(13) +
                     "input x: float32[2,3,4]\na = Transpose(x) {perm=[0,2,1]}\nb = Relu(a)\n"
                     "y = LpNormalization(b) {axis=1}\noutput y: float32[2,4,3]\n",
                 1);
  CHECK(run.reason("sink_transposes").find("(LpNormalization) reads 'b' in this order of axes") !=
        std::string::npos);
}

TEST_CASE("minimum cuts") {
  MinCut cut;
  const std::size_t a = cut.add_vertex(), b = cut.add_vertex(), c = cut.add_vertex();
  cut.add_edge(MinCut::source, a, 3);
  cut.add_edge(a, b, 1);
  cut.add_edge(a, c, 1);
  cut.add_edge(b, MinCut::sink, 5);
  cut.add_edge(c, MinCut::sink, MinCut::unlimited);
  const std::vector<bool> side = cut.source_side();
  CHECK(side[a]);
  CHECK_FALSE(side[b]);
  CHECK_FALSE(side[c]);
}

}  // namespace
}  // namespace onnxpress
