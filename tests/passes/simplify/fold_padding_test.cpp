#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::string text(const std::string& pad, const std::string& window,
                 const std::string& x = "float32[1,2,5,5]", int opset = 17) {
  return "model ir=8 opset=" + std::to_string(opset) + "\ninput x: " + x +
         "\ninitializer p: int64[8] = {0,0,1,0,0,0,2,1}\ninitializer w: float32[2,2,3,3] = "
         "random(1)\n"
         "initializer lowest: float32[] = {-inf}\ninitializer zero: float32[] = {0}\n" +
         pad + window + "output y\n";
}

PassRun check_folded(const std::string& model) {
  CAPTURE(model);
  PassRun run = run_pass("fold_padding", model);
  CHECK(run.outcome.counts["fold_padding"] == 1);
  CHECK(run.after->graph.node_count() == 1);
  CHECK_FALSE(run_pass("fold_padding", run.after->clone()).outcome.changed);
  return run;
}

void check_refused(const std::string& model, const std::string& reason) {
  CAPTURE(model);
  const PassRun run = check_unchanged("fold_padding", model);
  CHECK_MESSAGE(run.reason("fold_padding").find(reason) != std::string::npos,
                run.reason("fold_padding"));
}

const std::string zeros = "a = Pad(x, p)\n";
const std::string lowest = "a = Pad(x, p, lowest)\n";

TEST_CASE("into convolutions") {
  const PassRun run =
      check_folded(text(zeros, "y = Conv(a, w) {pads=[1,1,1,1], strides=[2,2]} \"conv\"\n"));
  CHECK(to_text(*run.after, false).find("pads=[2,1,3,2]") != std::string::npos);
  CHECK(run.after->graph.nodes()[0]->name == "conv");
  check_folded(
      text("a = Pad(x, p, zero)\n", "y = Conv(a, w) {auto_pad=\"VALID\"}\n", "float32[1,2,h,w]"));
  check_folded(
      text("a = Pad(x) {pads=[0,0,1,0,0,0,2,1]}\n", "y = Conv(a, w)\n", "float32[1,2,5,5]", 9));
}

TEST_CASE("into pooling") {
  check_folded(text(lowest, "y = MaxPool(a) {kernel_shape=[3,3], strides=[2,2]}\n"));
  check_folded(text(lowest, "y = MaxPool(a) {kernel_shape=[4,4], pads=[1,1,1,1]}\n"));
  check_folded(text(zeros, "y = AveragePool(a) {kernel_shape=[3,3]}\n"));
  check_folded(text(
      zeros, "y = AveragePool(a) {kernel_shape=[4,4], pads=[1,1,1,1], count_include_pad=1}\n"));
}

TEST_CASE("what stays") {
  check_refused(text("a = Pad(x, p) {mode=\"edge\"}\n", "y = Conv(a, w)\n"),
                "other than a constant");
  check_refused(text(lowest, "y = Conv(a, w)\n"), "pads with -inf");
  check_refused(text(zeros, "y = Conv(a, w) {auto_pad=\"SAME_UPPER\"}\n"), "auto_pad");
  check_refused(text(zeros, "input v: float32[2,2,3,3]\ny = Conv(a, v)\n"),
                "weights are not a constant");
  check_refused(text("initializer q: int64[8] = {0,1,0,0,0,1,0,0}\na = Pad(x, q)\n",
                     "initializer v: float32[2,4,3,3] = random(2)\ny = Conv(a, v)\n"),
                "other than spatial axes");
  check_refused(
      text("initializer q: int64[8] = {0,0,-1,0,0,0,0,0}\na = Pad(x, q)\n", "y = Conv(a, w)\n"),
      "cuts off");
  check_refused(text("input q: float32[]\na = Pad(x, p, q)\n", "y = Conv(a, w)\n"), "not known");
  check_refused(text(zeros, "y = Conv(a, w)\nz = Neg(a)\noutput z\n"), "another reader");
  check_refused(text(zeros, "y = MaxPool(a) {kernel_shape=[3,3]}\n"),
                "pads with 0, a maximum with -inf");
  check_refused(text(lowest, "y = MaxPool(a) {kernel_shape=[2,2]}\n"), "in the padding alone");
  check_refused(text(lowest, "y = MaxPool(a) {kernel_shape=[3,3], ceil_mode=1}\n"),
                "rounds sizes up");
  check_refused(text(zeros, "y = AveragePool(a) {kernel_shape=[4,4], pads=[1,1,1,1]}\n"),
                "does not count its own");
  check_refused(text("a = Pad(x) {pads=[0,0,1,0,0,0,2,1]}\n",
                     "y = AveragePool(a) {kernel_shape=[3,3]}\n", "float32[1,2,5,5]", 6),
                "of this opset");
}

}  // namespace
}  // namespace onnxpress
