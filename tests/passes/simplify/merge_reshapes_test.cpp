#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::string ints(const std::string& name, const std::string& count, const std::string& values) {
  return "initializer " + name + ": int64[" + count + "] = {" + values + "}\n";
}

std::string model(const std::string& body, int opset = 17) {
  return "model ir=8 opset=" + std::to_string(opset) + "\n" + body + "z = Neg(y)\noutput z\n";
}

PassRun check_merged(const std::string& rule, const std::string& body, std::size_t nodes,
                     int opset = 17) {
  CAPTURE(body);
  PassRun run = run_pass("merge_reshapes", model(body, opset));
  CHECK(run.outcome.counts[rule].get<int>() >= 1);
  CHECK(run.after->graph.node_count() == nodes);
  CHECK_FALSE(run_pass("merge_reshapes", run.after->clone()).outcome.changed);
  return run;
}

void check_refused(const std::string& rule, const std::string& body, const std::string& reason,
                   int opset = 17) {
  CAPTURE(body);
  const PassRun run = run_pass("merge_reshapes", model(body, opset));
  CHECK(run.outcome.counts[rule] == 0);
  CHECK_MESSAGE(run.reason(rule).find(reason) != std::string::npos, run.reason(rule));
}

TEST_CASE("chains that end where they began") {
  check_merged(
      "cancel_reshapes",
      "input x: float32[n,3]\n" + ints("a", "1", "1") + "u = Unsqueeze(x, a)\ny = Squeeze(u, a)\n",
      1);
  check_merged("cancel_reshapes",
               "input x: float32[n,3]\nu = Unsqueeze(x) {axes=[1]}\ny = Squeeze(u) {axes=[1]}\n", 1,
               11);
  check_merged("cancel_reshapes",
               "input x: float32[2,3]\n" + ints("s", "1", "6") + ints("t", "2", "2,3") +
                   "u = Reshape(x, s)\ny = Reshape(u, t)\n",
               1);
  check_merged(
      "cancel_reshapes",
      "input x: float32[2,3]\n" + ints("s", "1", "6") + ints("a", "1", "0") +
          ints("t", "2", "2,3") +
          "u = Reshape(x, s)\nv = Unsqueeze(u, a)\ny = Reshape(v, t)\nw = Abs(u)\noutput w\n",
      3);
}

TEST_CASE("Reshape behind another") {
  const std::string x = "input x: float32[2,3,4]\n";
  check_pass("merge_reshapes",
             model(x + ints("s", "1", "24") + ints("t", "2", "-1,6") +
                   "u = Reshape(x, s) \"first\"\ny = Reshape(u, t) \"second\"\n"),
             model(x + ints("t", "2", "-1,6") + "y = Reshape(x, t) \"second\"\n"));
  check_merged("skip_reshape", x + ints("t", "2", "-1,6") + "u = Flatten(x)\ny = Reshape(u, t)\n",
               2);
  // A 0 copies the same dim of both, or another.
  check_merged("skip_reshape",
               "input x: float32[n,3,4]\n" + ints("s", "2", "0,12") + ints("t", "3", "0,6,2") +
                   "u = Reshape(x, s)\ny = Reshape(u, t)\n",
               2);
  check_refused("skip_reshape",
                "input x: float32[2,n]\n" + ints("s", "2", "-1,2") + ints("t", "3", "0,2,1") +
                    "u = Reshape(x, s)\ny = Reshape(u, t)\n",
                "may copy dims of 'u'");
  // In a function no shape is known, and none needs to be.
  const PassRun run = run_pass("merge_reshapes", R"(model ir=8 opset=17 local=1
input x: float32[2,3]
y = local.Flat(x)
output y: float32[6]
function local.Flat() opset=17 {
  input v
  s = Constant() {value_ints=[3,2]}
  t = Constant() {value_ints=[-1]}
  a = Reshape(v, s)
  b = Reshape(a, t)
  output b
}
)");
  CHECK(run.outcome.counts["skip_reshape"] == 1);
}

TEST_CASE("Squeezes and Unsqueezes of more axes") {
  const PassRun run =
      check_merged("join_squeezes",
                   "input x: float32[n,?]\n" + ints("a", "2", "0,2") + ints("b", "2", "1,-1") +
                       "u = Unsqueeze(x, a)\ny = Unsqueeze(u, b)\n",
                   2);
  CHECK(to_text(*run.after, false).find("{0,1,3,5}") != std::string::npos);
  check_merged("join_squeezes",
               "input x: float32[n,?]\nu = Unsqueeze(x) {axes=[0]}\ny = Unsqueeze(u) {axes=[0]}\n",
               2, 11);
  check_merged("join_squeezes",
               "input x: float32[1,?,1,?,1]\n" + ints("a", "2", "2,0") + ints("b", "1", "-1") +
                   "u = Squeeze(x, a)\ny = Squeeze(u, b)\n",
               2);
  check_refused("join_squeezes",
                "input x: float32[1,?,1,?]\n" + ints("a", "1", "2") + ints("b", "1", "0") +
                    "u = Squeeze(x, a)\ny = Squeeze(u, b)\nw = Abs(u)\noutput w\n",
                "another reader");
}

TEST_CASE("other pairs become a Reshape") {
  check_merged("merge_reshapes",
               "input x: float32[n,1,4]\n" + ints("a", "1", "1") + ints("b", "1", "2") +
                   "u = Squeeze(x, a)\ny = Unsqueeze(u, b)\n",
               2);
  check_merged(
      "merge_reshapes",
      "input x: float32[2,3,4]\n" + ints("s", "3", "4,3,2") + "u = Reshape(x, s)\ny = Flatten(u)\n",
      2);
  check_refused("merge_reshapes",
                "input x: float32[n,m,1,4]\n" + ints("a", "1", "2") + ints("b", "1", "0") +
                    "u = Squeeze(x, a)\ny = Unsqueeze(u, b)\n",
                "not one dim to infer");
}

TEST_CASE("reductions give the dims themselves") {
  check_pass("merge_reshapes",
             model("input x: float32[n,?,3]\n" + ints("a", "1", "1") +
                   "r = ReduceMean(x) {axes=[1], keepdims=0} \"mean\"\ny = Unsqueeze(r, a)\n"),
             "model ir=8 opset=17\ninput x: float32[n,?,3]\n"
             "mean = ReduceMean(x) {axes=[1], keepdims=1} \"mean\"\nz = Neg(mean)\noutput z\n");
  check_merged("merge_into_reduction",
               "input x: float32[n,4,3]\n" + ints("a", "1", "-2") +
                   "r = ReduceSum(x, a) {keepdims=1}\ny = Squeeze(r, a)\n",
               2);
  check_merged("merge_into_reduction",
               "input x: float32[n,4,3]\n" + ints("s", "2", "0,3") +
                   "r = ReduceMax(x) {axes=[1]}\ny = Reshape(r, s)\n",
               2);
  check_merged("merge_into_reduction",
               "input x: float32[n,4,3,3]\nr = ReduceMean(x) {axes=[2,3]}\ny = Flatten(r)\n", 2);
  check_merged("merge_into_reduction",
               "input x: float32[2,4,3]\nr = ReduceMax(x) {axes=[1], keepdims=0}\n" +
                   ints("a", "1", "1") + "y = Unsqueeze(r, a)\n",
               2);
  check_refused("merge_into_reduction",
                "input x: float32[n,4,3]\n" + ints("a", "1", "0") +
                    "r = ReduceMean(x) {axes=[1], keepdims=0}\ny = Unsqueeze(r, a)\n",
                "not those of the reduction");
  check_refused(
      "merge_into_reduction",
      "input x: float32[n,4,3]\n" + ints("a", "1", "1") +
          "r = ReduceMean(x) {axes=[1], keepdims=0}\ny = Unsqueeze(r, a)\nw = Abs(r)\noutput w\n",
      "another reader");
}

TEST_CASE("a Transpose that moves axes of size 1 only is one of them") {
  const std::string x = "input x: float32[n,4]\n" + ints("a", "1", "1");
  check_merged("merge_reshapes", x + "u = Unsqueeze(x, a)\ny = Transpose(u) {perm=[0,2,1]}\n", 2);
  check_merged("cancel_reshapes",
               x + ints("b", "1", "2") +
                   "u = Unsqueeze(x, a)\nv = Transpose(u) {perm=[0,2,1]}\ny = Squeeze(v, b)\n",
               1);
  check_merged("skip_reshape",
               "input x: float32[1,4,6]\n" + ints("s", "2", "3,8") +
                   "u = Transpose(x) {perm=[1,0,2]}\ny = Reshape(u, s)\n",
               2);
  check_refused("merge_reshapes", x + "u = Unsqueeze(x, a)\ny = Transpose(u) {perm=[2,1,0]}\n", "");
  check_refused("merge_into_reduction",
                "input x: float32[2,4,3]\nr = ReduceMax(x) {axes=[1]}\n"
                "y = Transpose(r) {perm=[2,1,0]}\n",
                "it moves axes");
}

TEST_CASE("ConstantOfShape has the dims itself") {
  const std::string fill = "input x: float32[2,3]\n" + ints("s", "2", "2,3") + ints("a", "1", "0") +
                           "f = ConstantOfShape(s) {value=float32[1]{2}}\n";
  check_merged("reshape_fill", fill + "u = Unsqueeze(f, a)\ny = Mul(x, u)\n", 3);
  check_merged("reshape_fill",
               fill + ints("t", "1", "-1") + "u = Unsqueeze(f, a)\nv = Reshape(f, t)\n" +
                   "y = Mul(x, u)\nw = Neg(v)\noutput w\n",
               5);
  check_refused("reshape_fill", fill + "u = Unsqueeze(f, a)\ny = Mul(u, f)\n", "another reader");
  check_refused("reshape_fill",
                "input x: float32[n,3]\n" + ints("a", "1", "0") +
                    "s = Shape(x)\nf = ConstantOfShape(s)\nu = Unsqueeze(f, a)\ny = Mul(x, u)\n",
                "is not known");
}

TEST_CASE("Gather of one index") {
  const std::string x =
      "input x: float32[n,4,3]\ninitializer i: int64[] = {2}\ninitializer j: int64[1] = {-1}\n" +
      ints("a", "1", "1");
  check_merged("merge_into_gather", x + "g = Gather(x, i) {axis=1}\ny = Unsqueeze(g, a)\n", 2);
  check_merged("merge_into_gather", x + "g = Gather(x, j) {axis=-2}\ny = Squeeze(g, a)\n", 2);
  check_refused("merge_into_gather",
                x + ints("b", "1", "0") + "g = Gather(x, i) {axis=1}\ny = Unsqueeze(g, b)\n",
                "not the axis of a single index");
}

}  // namespace
}  // namespace onnxpress
