#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

// `body` computes y from h, which other operators make and read.
std::string text(const std::string& body, const std::string& x, int opset,
                 const std::string& more) {
  const std::string op = x.starts_with("bool") ? "Xor" : "Mul";
  return "model ir=8 opset=" + std::to_string(opset) + "\ninput x: " + x + "\n" + more +
         "h = " + op + "(x, x)\n" + body + "z = " + op + "(y, y)\noutput z\n";
}

void check_gone(const std::string& body, const std::string& x = "float32[2,3]",
                const std::string& more = "", int opset = 17) {
  const std::string model = text(body, x, opset, more);
  CAPTURE(model);
  const PassRun run = run_pass("eliminate_identities", model);
  CHECK(run.outcome.changed);
  CHECK(run.after->graph.node_count() == 2);
  CHECK(to_text(*run.after, false).find("(h, h)") != std::string::npos);
  CHECK_FALSE(run_pass("eliminate_identities", run.after->clone()).outcome.changed);
}

void check_kept(const std::string& body, const std::string& rule = "",
                const std::string& reason = "", const std::string& x = "float32[2,3]",
                const std::string& more = "", int opset = 17) {
  const std::string model = text(body, x, opset, more);
  CAPTURE(model);
  const PassRun run = run_pass("eliminate_identities", model);
  CHECK_FALSE(run.outcome.changed);
  CHECK_MESSAGE(run.reason(rule).find(reason) != std::string::npos, run.reason(rule));
}

TEST_CASE("operators that hand their input on") {
  check_gone("y = Identity(h)\n");
  check_gone("y = Dropout(h)\n");
  check_gone("y, mask = Dropout(h)\n");
  check_gone("y = Dropout(h) {ratio=0.3}\n", "float32[2,3]", "", 9);
  check_gone("y = Dropout(h, r, t)\n", "float32[2,3]",
             "initializer r: float32[] = {0.5}\ninitializer t: bool[] = {0}\n");
  check_gone("y = Cast(h) {to=1}\n");
  check_gone("y = CastLike(h, h)\n");
  check_gone("y = Flatten(h)\n");
  check_gone("y = Transpose(h) {perm=[0,1]}\n");
  check_gone("y = Transpose(h) {perm=[1,0,2]}\n", "float32[1,1,3]");
  check_gone("y = Concat(h) {axis=1}\n");
  check_gone("y = Split(h) {axis=1}\n");
  check_gone("y = Sum(h)\n");
  check_gone("y = Max(h)\n");
  check_gone("y = Min(h)\n");
  check_gone("y = Mean(h)\n");
  check_gone("y = MaxPool(h) {kernel_shape=[1,1]}\n", "float32[1,2,3,4]");
  check_gone("y = MaxPool(h) {kernel_shape=[1], auto_pad=\"SAME_UPPER\"}\n", "float32[1,2,3]");
}

TEST_CASE("shapes that are there already, symbols included") {
  const std::string s = "initializer s: int64[2] = {-1,3}\n";
  check_gone("y = Reshape(h, s)\n", "float32[2,3]", s);
  check_gone("y = Reshape(h, s)\n", "float32[n,3]", s);
  check_gone("y = Reshape(h, s)\n", "float32[?,3]", s);
  check_gone("y = Reshape(h, s)\n", "float32[n,m]", "initializer s: int64[2] = {0,0}\n");
  check_gone("y = Reshape(h, s)\n", "float32[?,?]", "initializer s: int64[2] = {0,-1}\n");
  check_gone("y = Reshape(h) {shape=[2,3]}\n", "float32[2,3]", "", 4);
  check_gone("y = Expand(h, s)\n", "float32[?,?]", "initializer s: int64[1] = {1}\n");
  check_gone("y = Expand(h, s)\n", "float32[2,3]", "initializer s: int64[2] = {2,1}\n");
  check_gone("s = Shape(h)\ny = Expand(h, s)\n", "float32[2,m]");
  check_gone("y = Tile(h, s)\n", "float32[2,m]", "initializer s: int64[2] = {1,1}\n");
  check_gone("y = Squeeze(h, a)\n", "float32[2,3]", "initializer a: int64[0] = {}\n");
}

TEST_CASE("shapes that are not known to be there stay") {
  check_kept("y = Reshape(h, s)\n", "eliminate_reshape", "its input is", "float32[n,m]",
             "initializer s: int64[2] = {-1,4}\n");
  check_kept("y = Reshape(h, s)\n", "eliminate_reshape", "its input is", "float32[n,3]",
             "initializer s: int64[3] = {-1,0,1}\n");
}

TEST_CASE("pads, slices and resizes of nothing") {
  check_gone("y = Pad(h, p)\n", "float32[2,3]", "initializer p: int64[4] = {0,0,0,0}\n");
  check_gone("y = Pad(h) {pads=[0,0,0,0]}\n", "float32[2,3]", "", 9);
  check_kept("y = Pad(h, p)\n", "eliminate_pad", "", "float32[2,3]",
             "initializer p: int64[4] = {0,0,1,0}\n");
  const std::string all =
      "initializer s: int64[1] = {0}\ninitializer e: int64[1] = {9223372036854775807}\n"
      "initializer a: int64[1] = {1}\n";
  check_gone("y = Slice(h, s, e, a)\n", "float32[2,?]", all);
  check_gone("y = Slice(h) {starts=[0], ends=[3], axes=[1]}\n", "float32[2,3]", "", 9);
  check_kept("y = Slice(h) {starts=[0], ends=[3], axes=[1]}\n", "eliminate_slice", "axis 1 is m",
             "float32[2,m]", "", 9);
  const std::string reversed =
      "initializer s: int64[1] = {-1}\ninitializer e: int64[1] = {-9}\n"
      "initializer a: int64[1] = {1}\ninitializer t: int64[1] = {-1}\n";
  check_kept("y = Slice(h, s, e, a, t)\n", "eliminate_slice", "", "float32[2,3]", reversed);
  check_gone("y = Slice(h, s, e, a, t)\n", "float32[2,1]", reversed);
  check_gone("y = Resize(h, _, s)\n", "float32[1,1,2,2]",
             "initializer s: float32[4] = {1,1,1,1}\n");
  check_gone("y = Resize(h, _, _, s)\n", "float32[1,1,2,2]",
             "initializer s: int64[4] = {1,1,2,2}\n");
  check_kept("y = Resize(h, _, s)\n", "eliminate_resize", "", "float32[1,1,2,2]",
             "initializer s: float32[4] = {1,1,1.1,1}\n");
  check_gone("y = Upsample(h) {scales=[1.0,1.0,1.0,1.0]}\n", "float32[1,1,2,2]", "", 7);
}

TEST_CASE("operands that change nothing") {
  const auto constant = [](const std::string& dims, const std::string& values) {
    return "initializer c: float32" + dims + " = {" + values + "}\n";
  };
  check_gone("y = Mul(h, c)\n", "float32[2,3]", constant("[]", "1"));
  check_gone("y = Mul(c, h)\n", "float32[2,3]", constant("[1,3]", "1,1,1"));
  check_gone("y = Mul(h, c)\n", "float32[?,3]", constant("[1,1]", "1"));
  check_gone("y = Div(h, c)\n", "float32[n,3]", constant("[1]", "1"));
  check_gone("y = Sub(h, c)\n", "float32[n,3]", constant("[]", "0"));
  check_gone("y = Pow(h, c)\n", "float32[n,3]", constant("[]", "1"));
  check_gone("y = Pow(h, c)\n", "float32[n,3]", "initializer c: int64[] = {1}\n");
  check_gone("y = Add(h, c)\n", "float32[n,3]", constant("[]", "-0.0"));
  check_gone("y = Add(h, c)\n", "int32[n,3]", "initializer c: int32[1] = {0}\n");
  check_gone("y = Mul(h, c) {broadcast=1}\n", "float32[2,3]", constant("[3]", "1,1,1"), 6);
  check_gone("y = And(c, h)\n", "bool[2,3]", "initializer c: bool[1] = {1}\n");
  check_gone("y = Or(h, c)\n", "bool[2,3]", "initializer c: bool[1] = {0}\n");

  check_kept("y = Add(h, c)\n", "eliminate_neutral_operand", "makes +0 of -0", "float32[2,3]",
             constant("[]", "0"));
  check_kept("y = Mul(h, c)\n", "eliminate_neutral_operand",
             "its input is float32[1,1], its result float32[1,3]", "float32[1,1]",
             constant("[1,3]", "1,1,1"));
  check_kept("y = Mul(h, c)\n", "eliminate_neutral_operand", "its input is float32[2,n]",
             "float32[2,n]", constant("[1,8]", "1,1,1,1,1,1,1,1"));
  check_kept("y = Mul(h, c)\n", "eliminate_neutral_operand", "its input is", "float32[2]",
             constant("[1,1]", "1"));
  check_kept("y = Div(c, h)\n", "eliminate_neutral_operand", "", "float32[2,3]",
             constant("[]", "1"));
  check_kept("y = Sub(c, h)\n", "eliminate_neutral_operand", "", "float32[2,3]",
             constant("[]", "0"));
  check_kept("y = Pow(h, c)\n", "eliminate_neutral_operand", "element types", "int64[2,3]",
             constant("[]", "1"));
}

TEST_CASE("operands that decide the result") {
  const PassRun run = run_pass("eliminate_identities", R"(model ir=8 opset=17
input x: int64[]
input v: float32[3]
initializer zero: int64[1] = {0}
n = Mul(x, zero)
f = Cast(n) {to=1}
y = Add(v, f)
output y: float32[3]
)");
  CHECK(run.outcome.counts["fold_decided_operand"] == 1);
  CHECK(run.after->graph.node_count() == 2);
  check_kept("y = Mul(h, c)\n", "", "", "float32[2,3]", "initializer c: float32[] = {0}\n");
}

TEST_CASE("conditions, reductions, and operators that undo themselves") {
  check_gone("y = Where(c, h, o)\n", "float32[2,3]",
             "initializer c: bool[] = {1}\ninitializer o: float32[] = {7}\n");
  check_gone("y = Where(c, o, h)\n", "float32[2,3]",
             "initializer c: bool[1] = {0}\ninitializer o: float32[] = {7}\n");
  check_kept("y = Where(c, h, o)\n", "eliminate_where", "its input is", "float32[1,3]",
             "initializer c: bool[] = {1}\ninitializer o: float32[4,2,3] = random(1)\n");
  check_gone("y = ReduceMax(h) {axes=[1]}\n", "float32[2,1,3]");
  check_gone("y = ReduceSum(h, a)\n", "int64[2,1,3]", "initializer a: int64[1] = {1}\n");
  check_kept("y = ReduceSum(h, a)\n", "eliminate_reduction", "makes +0 of -0", "float32[2,1,3]",
             "initializer a: int64[1] = {1}\n");
  check_kept("y = ReduceMax(h) {axes=[1]}\n", "eliminate_reduction", "", "float32[2,n,3]");
  check_gone("i = Neg(h)\ny = Neg(i)\n");
  check_gone("i = Not(h)\ny = Not(i)\n", "bool[2,3]");
  const PassRun run =
      run_pass("eliminate_identities", text("i = Relu(h)\ny = Relu(i)\n", "float32[2,3]", 17, ""));
  CHECK(run.after->graph.node_count() == 3);
}

TEST_CASE("what stays: casts to other types, masks in use, training") {
  check_kept("y = Cast(h) {to=11}\n");
  check_kept("y, mask = Dropout(h)\nw = Not(mask)\noutput w\n", "eliminate_dropout",
             "'mask' is in use");
  const PassRun training =
      run_pass("eliminate_identities",
               text("y = Dropout(h, _, t)\n", "float32[2,3]", 17, "input t: bool[]\n"),
               {.input_ranges = {{"t", {0, 0}}}});
  CHECK_FALSE(training.outcome.changed);
  CHECK(training.reason("eliminate_dropout") == "it may be in training mode");
  check_kept("y = Transpose(h)\n");
  check_kept("y = Concat(h, h) {axis=1}\n");
  check_kept("y, w = Split(h) {axis=0}\n");
  check_kept("y = MaxPool(h) {kernel_shape=[1,1], strides=[2,2]}\n", "", "", "float32[1,2,3,4]");
}

TEST_CASE("graph outputs keep their names") {
  check_pass("eliminate_identities", R"(model ir=8 opset=17
input x: float32[2]
t = Exp(x) "exp"
u = Identity(t)
y = Identity(u)
output y: float32[2]
)",
             R"(model ir=8 opset=17
input x: float32[2]
y = Exp(x) "exp"
output y: float32[2]
)");
  const auto reason = [](const std::string& body) {
    const PassRun run = check_unchanged("eliminate_identities",
                                        "model ir=8 opset=17\ninput x: float32[2]\n" + body);
    return run.reason("eliminate_identity");
  };
  CHECK(reason("y = Identity(x)\noutput y: float32[2]\n").find("'x' is a graph input") !=
        std::string::npos);
  CHECK(
      reason(
          "initializer c: float32[2] = {1,2}\ny = Identity(c)\nz = Add(y, x)\noutput y\noutput z\n")
          .find("'c' is a constant") != std::string::npos);
  CHECK(reason("t = Exp(x)\ny = Identity(t)\noutput y\noutput t\n").find("is one too") !=
        std::string::npos);
  // Two outputs of one value: one takes the name.
  const PassRun run =
      run_pass("eliminate_identities",
               "model ir=8 opset=17\ninput x: float32[2]\nt = Exp(x)\ny = Identity(t)\n"
               "z = Identity(t)\noutput y\noutput z\n");
  CHECK(run.after->graph.node_count() == 2);
}

TEST_CASE("inside subgraphs and functions") {
  const PassRun run = run_pass("eliminate_identities", R"(model ir=8 opset=17
input c: bool[]
input x: float32[2]
t = Exp(x)
y = If(c) {then_branch=graph {
  a = Identity(t)
  b = Neg(a)
  p = Identity(b)
  output p
}, else_branch=graph {
  q = Identity(t)
  output q
}}
output y: float32[2]
)");
  CHECK(run.outcome.counts["eliminate_identity"] == 2);
  CHECK(run.reason("eliminate_identity").find("of a graph around it") != std::string::npos);

  const PassRun called = run_pass("eliminate_identities", R"(model ir=8 opset=17 local=1
input x: float32[2]
y = local.Same(x) {to=1}
output y: float32[2]
function local.Same(to) opset=17 {
  input v
  a = Identity(v)
  b = Cast(a) {to=@to(int)}
  w = Exp(b)
  output w
}
)");
  CHECK(called.outcome.counts["eliminate_identity"] == 1);
  CHECK(called.reason("eliminate_cast").find("parameters of the function") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
