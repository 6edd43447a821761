#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

const std::string head = "model ir=8 opset=17\ninput x: float32[n,2]\ninput y: float32[n,3]\n";

std::string slice(const std::string& to, std::int64_t start, const std::string& end,
                  std::int64_t axis = 1, std::int64_t step = 1) {
  const auto constant = [&](const std::string& name, const std::string& value) {
    return "initializer " + to + name + ": int64[1] = {" + value + "}\n";
  };
  return constant("s", std::to_string(start)) + constant("e", end) +
         constant("x", std::to_string(axis)) + constant("t", std::to_string(step)) + to +
         " = Slice(c, " + to + "s, " + to + "e, " + to + "x, " + to + "t)\n";
}

const std::string last = "9223372036854775807";
const std::string concat = "a = Neg(x)\nb = Exp(y)\nc = Concat(a, b) {axis=-1}\n";

std::string slices(const std::string& first, const std::string& second) {
  return head + concat + first + second + "p = Abs(s0)\nq = Abs(s1)\noutput p\noutput q\n";
}

TEST_CASE("slices that take whole parts read them") {
  const PassRun run = run_pass("take_concat_parts", slices(slice("s0", 0, "2"), slice("s1", -3, last)));
  CHECK(run.outcome.counts["slice_of_concat"] == 2);
  CHECK(run.after->graph.node_count() == 4);
}

TEST_CASE("slices inside parts move there when the concat goes") {
  const PassRun run = run_pass("take_concat_parts", slices(slice("s0", 1, "2"), slice("s1", 3, "5")));
  CHECK(run.after->graph.node_count() == 6);
  // b as a whole, a piece of a that the Concat would be kept for.
  const PassRun kept =
      run_pass("take_concat_parts", slices(slice("s0", 2, last), slice("s1", 1, "3")));
  CHECK(kept.outcome.counts["slice_of_concat"] == 1);
  CHECK(kept.reason("slice_of_concat").find("does not take elements of one part") !=
        std::string::npos);
}

TEST_CASE("slices across parts, backwards, of other axes and of parts of unknown size stay") {
  const auto unchanged = [](const std::string& text) {
    CAPTURE(text);
    return check_unchanged("take_concat_parts", text).reason("slice_of_concat");
  };
  CHECK(unchanged(slices(slice("s0", 1, "4"), slice("s1", 0, last, 1, 2))) != "");
  CHECK(unchanged(slices(slice("s0", 4, "0", 1, -1), slice("s1", 0, "2", 0))) != "");
  check_unchanged("take_concat_parts",
                  "model ir=8 opset=17\ninput x: float32[n,2]\ninput y: float32[m,2]\n"
                  "a = Neg(x)\nb = Exp(y)\nc = Concat(a, b) {axis=0}\n" +
                      slice("s0", 0, "2", 0) + "p = Abs(s0)\noutput p\n");
}

TEST_CASE("a whole part under a graph output's name") {
  CHECK(run_pass("take_concat_parts", head + concat + slice("s0", 0, "2") + "output s0\n")
            .after->graph.node_count() == 1);
  // A graph input cannot be an output under another name.
  CHECK(check_unchanged("take_concat_parts", head + "c = Concat(x, y) {axis=1}\n" +
                                                 slice("s0", 0, "2") + "output s0\n")
            .reason("slice_of_concat")
            .find("a graph input") != std::string::npos);
}

std::string split(const std::string& sizes, const std::string& outputs) {
  return head + concat + "initializer k: int64[" +
         std::to_string(std::count(sizes.begin(), sizes.end(), ',') + 1) + "] = {" + sizes + "}\n" +
         outputs + " = Split(c, k) {axis=1}\n";
}

TEST_CASE("splits into the parts") {
  const PassRun run = run_pass("take_concat_parts",
                               split("2,3", "s0, s1") + "p = Abs(s0)\nq = Abs(s1)\noutput p\noutput q\n");
  CHECK(run.outcome.counts["split_of_concat"] == 1);
  CHECK(run.after->graph.node_count() == 4);
  // Only what is read counts.
  const PassRun partly =
      run_pass("take_concat_parts", split("2,1,2", "s0, s1, s2") + "p = Abs(s0)\noutput p\n");
  CHECK(partly.after->graph.node_count() == 2);
  CHECK(check_unchanged("take_concat_parts",
                        split("3,2", "s0, s1") + "p = Abs(s0)\nq = Abs(s1)\noutput p\noutput q\n")
            .reason("split_of_concat")
            .find("are not the parts") != std::string::npos);
}

TEST_CASE("equal parts of a split before opset 13") {
  const PassRun run = run_pass("take_concat_parts", R"(model ir=8 opset=11
input x: float32[2,n]
a = Neg(x)
b = Exp(x)
c = Concat(a, b) {axis=0}
s0, s1 = Split(c) {axis=0}
y = Sub(s1, s0)
output y
)");
  CHECK(run.after->graph.node_count() == 3);
  CHECK(check_unchanged("take_concat_parts", R"(model ir=8 opset=11
input x: float32[2,n]
a = Neg(x)
c = Concat(a, a) {axis=0}
s0, s1 = Split(c) {axis=0}
output s0
output s1
)")
            .reason("split_of_concat")
            .find("two graph outputs") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
