#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

struct Bounds {
  std::string start, end, axis, step = "1";
};

std::string slice(const std::string& to, const std::string& from, const Bounds& bounds) {
  const auto constant = [&](const std::string& name, const std::string& value) {
    return "initializer " + to + name + ": int64[1] = {" + value + "}\n";
  };
  return constant("s", bounds.start) + constant("e", bounds.end) + constant("x", bounds.axis) +
         constant("t", bounds.step) + to + " = Slice(" + from + ", " + to + "s, " + to + "e, " +
         to + "x, " + to + "t)\n";
}

PassRun run_slices(const std::string& x, const Bounds& first, const Bounds& second) {
  const std::string text = "model ir=8 opset=17\ninput x: float32" + x + "\n" +
                           slice("a", "x", first) + slice("b", "a", second) +
                           "y = Neg(b)\noutput y\n";
  CAPTURE(text);
  PassRun run = run_pass("merge_slices", text);
  CHECK_FALSE(run_pass("merge_slices", run.after->clone()).outcome.changed);
  return run;
}

void check_merged(const std::string& x, const Bounds& first, const Bounds& second) {
  CHECK(run_slices(x, first, second).after->graph.node_count() == 2);
}

constexpr const char* end = "9223372036854775807";
constexpr const char* beginning = "-9223372036854775808";

TEST_CASE("slices of different axes") {
  check_merged("[8,9]", {"1", "7", "0"}, {"2", "5", "1", "2"});
  check_merged("[?,?]", {"0", end, "0", "2"}, {"1", end, "1", "2"});
  check_merged("[8,9]", {"-3", end, "-2"}, {"-4", "-1", "-1"});
}

TEST_CASE("slices of one axis of known size, forwards and backwards") {
  for (const std::string first : {"0", "1", "3", "-2", "-9", "12"})
    for (const std::string last : {"9", "4", "-1", "0", "-20", end, beginning})
      for (const std::string step : {"1", "2", "-1", "-3"})
        for (const Bounds& second :
             {Bounds{"0", end, "0"}, Bounds{"1", "3", "0"}, Bounds{"-1", beginning, "0", "-1"},
              Bounds{"0", end, "0", "2"}, Bounds{"-2", "-1", "0"}})
          check_merged("[9]", {first, last, "0", step}, second);
}

TEST_CASE("slices of one axis of unknown size") {
  check_merged("[n]", {"1", end, "0"}, {"2", end, "0"});
  check_merged("[n]", {"1", "6", "0"}, {"2", end, "0", "2"});
  check_merged("[n]", {"1", "-1", "0"}, {"2", end, "0"});
  check_merged("[n]", {"1", end, "0"}, {"2", "4", "0"});
  check_merged("[n]", {"1", "4", "0"}, {"1", "9", "0"});
  check_merged("[n]", {"2", end, "0"}, {"0", "-1", "0"});
  for (const auto& [first, second] :
       std::initializer_list<std::pair<Bounds, Bounds>>{{{"-4", end, "0"}, {"1", "2", "0"}},
                                                        {{"0", "5", "0"}, {"0", "-1", "0"}},
                                                        {{"0", "-1", "0"}, {"0", "4", "0"}},
                                                        {{"0", end, "0", "2"}, {"1", end, "0"}},
                                                        {{"0", end, "0"}, {"-2", end, "0"}}}) {
    const PassRun run = run_slices("[n]", first, second);
    CHECK_FALSE(run.outcome.changed);
    CHECK(run.reason("merge_slices").find("cannot be put together") != std::string::npos);
  }
}

TEST_CASE("bounds as attributes") {
  check_pass("merge_slices", R"(model ir=8 opset=9
input x: float32[8,9]
a = Slice(x) {axes=[0], starts=[1], ends=[7]}
b = Slice(a) {axes=[0,1], starts=[1,0], ends=[3,4]} "second"
y = Neg(b)
output y
)",
             R"(model ir=8 opset=9
input x: float32[8,9]
second = Slice(x) {axes=[0,1], ends=[4,4], starts=[2,0]} "second"
y = Neg(second)
output y
)");
}

TEST_CASE("a shared first slice goes when all that read it are slices") {
  // The space-to-depth of YOLO's first layer.
  const std::string focus =
      "model ir=8 opset=17\ninput x: float32[1,3,8,8]\n" + slice("a", "x", {"0", end, "2", "2"}) +
      slice("b", "a", {"0", end, "3", "2"}) + slice("c", "a", {"1", end, "3", "2"}) +
      "y = Concat(b, c) {axis=1}\noutput y\n";
  const PassRun run = run_pass("merge_slices", focus);
  CHECK(run.after->graph.node_count() == 3);
  CHECK(run.outcome.counts["merge_slices"] == 2);
  const std::string shared = "model ir=8 opset=17\ninput x: float32[8]\n" +
                             slice("a", "x", {"1", end, "0"}) + slice("b", "a", {"1", end, "0"}) +
                             "y = Neg(b)\noutput y\n";
  CHECK(check_unchanged("merge_slices", shared + "z = Neg(a)\noutput z\n")
            .reason("merge_slices")
            .find("has another reader") != std::string::npos);
  CHECK(check_unchanged("merge_slices", shared + "output a\n")
            .reason("merge_slices")
            .find("is a graph output") != std::string::npos);
  CHECK(check_unchanged("merge_slices",
                        "model ir=8 opset=17\ninput x: float32[8]\ninput s: int64[1]\n" +
                            slice("a", "x", {"1", end, "0"}) + "b = Slice(a, s, s)\noutput b\n",
                        {.input_ranges = {{"s", {0, 1}}}})
            .reason("merge_slices")
            .find("cannot be put together") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
