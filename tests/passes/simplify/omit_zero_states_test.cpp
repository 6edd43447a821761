#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::string lstm(const std::string& states) {
  return "model ir=8 opset=17\ninput x: float32[4,n,3]\ninitializer w: float32[1,20,3] = "
         "random(1)\n"
         "initializer r: float32[1,20,5] = random(2)\n" +
         states +
         "y, yh, yc = LSTM(x, w, r, _, _, h, c) {hidden_size=5}\noutput y\noutput yh\noutput yc\n";
}

TEST_CASE("states computed from the batch size") {
  const PassRun run = run_pass("omit_zero_states", lstm(R"(initializer one: int64[1] = {1}
initializer two: int64[1] = {2}
initializer size: int64[1] = {5}
initializer index: int64[] = {1}
initializer zero: int64[1] = {0}
s = Shape(x)
g = Gather(s, index)
u = Unsqueeze(g, zero)
k = Concat(two, u, size) {axis=0}
z = ConstantOfShape(k)
h = Slice(z, zero, one)
c = Slice(z, one, two)
)"));
  CHECK(run.outcome.counts["omit_zero_states"] == 1);
  CHECK(run.after->graph.node_count() == 1);
  CHECK(run.after->graph.nodes()[0]->input_count() == 3);
  CHECK_FALSE(run_pass("omit_zero_states", run.after->clone()).outcome.changed);
}

TEST_CASE("one of two, and none") {
  const std::string constant = "initializer h: float32[1,2,5] = zeros\n";
  const auto fixed = [](std::string text) {
    return text.replace(text.find("[4,n,3]"), 7, "[4,2,3]");
  };
  const PassRun one = run_pass("omit_zero_states",
                               fixed(lstm(constant + "initializer c: float32[1,2,5] = ones\n")));
  CHECK(one.outcome.changed);
  CHECK(one.after->graph.nodes()[0]->input(5) == nullptr);
  CHECK(one.after->graph.nodes()[0]->input(6) != nullptr);
  const PassRun none = check_unchanged(
      "omit_zero_states",
      fixed(lstm("initializer h: float32[1,2,5] = ones\ninput c: float32[1,2,5]\n")));
  CHECK(none.reason("omit_zero_states") == "its initial states are not known to be zeros");
  // -0 is another state.
  check_unchanged(
      "omit_zero_states",
      fixed(lstm(
          "initializer h: float32[1,2,5] = {-0.0,-0.0,-0.0,-0.0,-0.0,-0.0,-0.0,-0.0,-0.0,-0.0}\n"
          "input c: float32[1,2,5]\n")));
}

}  // namespace
}  // namespace onnxpress
