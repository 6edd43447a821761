#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::string model(const std::string& body, int opset = 17) {
  return "model ir=8 opset=" + std::to_string(opset) + "\n" + body;
}

// Rule `rule` applies, and `nodes` nodes are left; a second run changes nothing.
PassRun check_merged(const std::string& rule, const std::string& body, std::size_t nodes,
                     int opset = 17) {
  CAPTURE(body);
  PassRun run = run_pass("merge_chains", model(body, opset));
  CHECK(run.outcome.counts[rule].get<int>() >= 1);
  CHECK(run.after->graph.node_count() == nodes);
  CHECK_FALSE(run_pass("merge_chains", run.after->clone()).outcome.changed);
  return run;
}

void check_refused(const std::string& rule, const std::string& body, const std::string& reason,
                   int opset = 17) {
  CAPTURE(body);
  const PassRun run = run_pass("merge_chains", model(body, opset));
  CHECK(run.outcome.counts[rule] == 0);
  CHECK_MESSAGE(run.reason(rule).find(reason) != std::string::npos, run.reason(rule));
}

TEST_CASE("Transposes in a row") {
  check_pass("merge_chains", model(R"(input x: float32[n,2,3]
a = Transpose(x) {perm=[1,0,2]} "first"
b = Transpose(a) {perm=[0,2,1]} "second"
y = Neg(b)
output y
)"),
             model(R"(input x: float32[n,2,3]
second = Transpose(x) {perm=[1,2,0]} "second"
y = Neg(second)
output y
)"));
  const std::string x = "input x: float32[n,2,3]\n";
  check_merged("merge_transposes",
               x + "a = Transpose(x) {perm=[1,0,2]}\nb = Transpose(a) {perm=[1,0,2]}\ny = "
                   "Neg(b)\noutput y\n",
               1);
  check_merged("merge_transposes", x + "a = Transpose(x)\nb = Transpose(a)\ny = Neg(b)\noutput y\n",
               1);
  // From an input to an output an Identity is left.
  check_merged("merge_transposes", x + "a = Transpose(x)\ny = Transpose(a)\noutput y\n", 1);
  // Others read the first one: what cancels still goes, what does not stays.
  check_merged(
      "merge_transposes",
      x + "a = Transpose(x)\nb = Transpose(a)\ny = Neg(b)\nz = Neg(a)\noutput y\noutput z\n", 3);
  check_refused("merge_transposes",
                x + "a = Transpose(x) {perm=[1,0,2]}\nb = Transpose(a) {perm=[0,2,1]}\ny = "
                    "Neg(b)\nz = Neg(a)\noutput y\noutput z\n",
                "'a' has another reader");
  // All readers are Transposes: the first one goes.
  check_merged("merge_transposes",
               x + "a = Transpose(x) {perm=[1,0,2]}\nb = Transpose(a) {perm=[0,2,1]}\nc = "
                   "Transpose(a) {perm=[2,1,0]}\n"
                   "y = Neg(b)\nz = Neg(c)\noutput y\noutput z\n",
               4);
}

TEST_CASE("Casts that widen and narrow") {
  const auto chain = [](const std::string& from, int through, int to) {
    return "input x: " + from + "[3]\na = Cast(x) {to=" + std::to_string(through) +
           "}\nb = Cast(a) {to=" + std::to_string(to) + "}\ny = Identity(b)\noutput y\n";
  };
  for (const auto& [from, through, to] :
       std::initializer_list<std::tuple<const char*, int, int>>{{"float16", 1, 10},
                                                                {"float16", 1, 11},
                                                                {"float32", 11, 10},
                                                                {"int8", 6, 2},
                                                                {"uint8", 1, 11},
                                                                {"int32", 11, 1},
                                                                {"bool", 7, 1},
                                                                {"int32", 7, 6},
                                                                {"bfloat16", 1, 16},
                                                                {"int8", 1, 9}})
    check_merged("skip_cast", chain(from, through, to), 2);
  check_refused("skip_cast", chain("float32", 10, 1), "float16 loses of float32");
  check_refused("skip_cast", chain("int64", 1, 7), "float32 loses of int64");
  check_refused("skip_cast", chain("int64", 11, 7), "float64 loses of int64");
  check_refused("skip_cast", chain("float32", 7, 1), "int64 loses of float32");
  check_refused("skip_cast", chain("bfloat16", 10, 1), "float16 loses of bfloat16");
  check_refused("skip_cast", chain("int8", 1, 2), "in another way");
}

TEST_CASE("Concats of Concats, Splits and Concats") {
  const std::string x = "input x: float32[2,2]\ninput w: float32[2,2]\n";
  check_pass("merge_chains", model(x + R"(a = Concat(x, w) {axis=1} "inner"
b = Concat(w, a, x) {axis=-1} "outer"
y = Neg(b)
output y
)"),
             model(x + R"(outer = Concat(w, x, w, x) {axis=-1} "outer"
y = Neg(outer)
output y
)"));
  check_merged("merge_concats",
               x + "a = Concat(x, w) {axis=0}\nb = Concat(a, a) {axis=0}\ny = Neg(b)\noutput y\n",
               2);
  check_merged("merge_concats",
               x + "a = Concat(x, w) {axis=0}\nb = Concat(a, x) {axis=0}\nc = Concat(x, b) "
                   "{axis=0}\noutput c\n",
               1);
  check_refused("merge_concats",
                x + "a = Concat(x, w) {axis=1}\nb = Concat(a, a) {axis=0}\noutput b\n",
                "another axis");
  check_refused(
      "merge_concats",
      x + "a = Concat(x, w) {axis=1}\nb = Concat(a, x) {axis=1}\nz = Neg(a)\noutput b\noutput z\n",
      "another reader");

  const std::string parts = "input x: float32[4,n]\np = Abs(x)\na, b = Split(p) {axis=0}\n";
  check_merged("join_split", parts + "c = Concat(a, b) {axis=0}\ny = Neg(c)\noutput y\n", 2);
  check_merged("join_split", parts + "y = Concat(a, b) {axis=-2}\noutput y\n", 1);
  check_refused("join_split", parts + "c = Concat(b, a) {axis=0}\ny = Neg(c)\noutput y\n",
                "another order");
  check_refused("join_split", parts + "c = Concat(a, b) {axis=1}\ny = Neg(c)\noutput y\n",
                "another axis");
  check_refused("join_split", parts + "c = Concat(a, b, a) {axis=0}\ny = Neg(c)\noutput y\n",
                "all parts");

  const std::string joined =
      "input x: float32[2,n]\ninput w: float32[2,n]\np = Abs(x)\nq = Exp(w)\nc = Concat(p, q) "
      "{axis=0}\n";
  check_merged("split_concat",
               joined + "a, b = Split(c) {axis=0}\ny = Neg(a)\nz = Neg(b)\noutput y\noutput z\n",
               4);
  check_merged("split_concat", joined + "a, b = Split(c) {axis=0}\noutput a\noutput b\n", 2);
  check_refused(
      "split_concat",
      joined + "initializer s: int64[2] = {1,3}\na, b = Split(c, s) {axis=0}\noutput a\noutput b\n",
      "part 0");
  check_refused("split_concat",
                "input x: float32[2]\np = Abs(x)\nc = Concat(p, p) {axis=0}\na, b = Split(c) "
                "{axis=0}\noutput a\noutput b\n",
                "parts 0 and 1 are one value");
}

TEST_CASE("Clips and Relus") {
  const std::string x =
      "input x: float32[5]\ninitializer zero: float32[] = {0}\ninitializer six: float32[] = {6}\n"
      "initializer low: float32[] = {-1}\ninitializer one: float32[] = {1}\n";
  const auto clip = [&](const std::string& body) {
    return x + body + "y = Identity(b)\noutput y\n";
  };
  const PassRun relu6 =
      check_merged("merge_clips", clip("a = Clip(x, low, six)\nb = Relu(a)\n"), 2);
  CHECK(to_text(*relu6.after, false).find("Clip") != std::string::npos);
  check_merged("merge_clips", clip("a = Relu(x)\nb = Clip(a, low, six)\n"), 2);
  check_merged("merge_clips", clip("a = Relu(x)\nb = Clip(a, zero, six)\n"), 2);
  check_merged("merge_clips", clip("a = Clip(x, zero, six)\nb = Relu(a)\n"), 2);
  check_merged("merge_clips", clip("a = Clip(x, zero, six)\nb = Clip(a, low, one)\n"), 2);
  check_merged("merge_clips", clip("a = Clip(x, one, six)\nb = Clip(a, low, zero)\n"), 2);
  check_merged("merge_clips",
               "input x: float32[5]\na = Clip(x) {min=-1.0, max=6.0}\nb = Clip(a) {max=2.0}\ny = "
               "Identity(b)\noutput y\n",
               2, 10);
  // The first is read elsewhere: only what needs no new operator.
  check_merged("merge_clips", clip("a = Clip(x, zero, six)\nb = Relu(a)\nz = Neg(a)\noutput z\n"),
               3);
  check_refused("merge_clips", clip("a = Clip(x, low, six)\nb = Relu(a)\nz = Neg(a)\noutput z\n"),
                "another reader");
  check_refused("merge_clips", clip("input m: float32[]\na = Clip(x, m)\nb = Relu(a)\n"),
                "not a constant");
  check_refused("merge_clips", clip("a = Clip(x, one, low)\nb = Relu(a)\n"), "above the upper one");
  check_refused("merge_clips", "input x: int64[5]\na = Relu(x)\nb = Relu(a)\noutput b\n", "int64",
                14);
}

TEST_CASE("Where behind Not") {
  check_pass("merge_chains", model(R"(input c: bool[3]
input x: float32[3]
input w: float32[3]
n = Not(c)
y = Where(n, x, w)
output y
)"),
             model(R"(input c: bool[3]
input x: float32[3]
input w: float32[3]
y = Where(c, w, x)
output y
)"));
  check_refused("swap_where_branches",
                "input c: bool[3]\ninput x: float32[3]\nn = Not(c)\nk = Neg(x)\ny = Where(n, x, "
                "k)\noutput y\noutput n\n",
                "another reader");
}

TEST_CASE("in branches, chains across graphs stay") {
  const PassRun run = run_pass("merge_chains", R"(model ir=8 opset=17
input c: bool[]
input x: float32[2,3]
t = Transpose(x)
y = If(c) {then_branch=graph {
  a = Transpose(t)
  b = Neg(a)
  p = Transpose(b)
  q = Transpose(p)
  output q
}, else_branch=graph {
  e = Neg(x)
  output e
}}
output y
)");
  CHECK(run.outcome.counts["merge_transposes"] == 1);
  CHECK(run.after->graph.node_count() == 2);
}

}  // namespace
}  // namespace onnxpress
