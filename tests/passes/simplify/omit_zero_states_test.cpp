#include <doctest/doctest.h>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "omit_zero_states";

std::string lstm(std::string_view h, std::string_view c, std::string_view fill = "0.0") {
  return fmt::format(R"(model ir=8 opset=17
input x: float32[3,batch,2]
input other: float32[1,batch,4]
initializer w: float32[1,16,2] = random(1)
initializer r: float32[1,16,4] = random(2)
initializer one: int64[1] = {{1}}
initializer zero: int64[1] = {{0}}
initializer four: int64[1] = {{4}}
shape = Shape(x)
b = Gather(shape, one)
target = Concat(one, b, four) {{axis=0}}
flat = Concat(b, four) {{axis=0}}
h0 = ConstantOfShape(target) {{value=float32[1]{{{2}}}}}
row = ConstantOfShape(flat)
c0 = Unsqueeze(row, zero)
y, yh, yc = LSTM(x, w, r, _, _, {0}, {1}) {{hidden_size=4}}
output yh: float32[1,batch,4]
)",
                     h, c, fill);
}

TEST_CASE("zero states are left out") {
  const PassRun run = run_pass(step, lstm("h0", "c0"));
  const Node& cell = *run.after->graph.nodes().back();
  CHECK(cell.input_count() == 3);
  CHECK(run.outcome.counts["omit_zero_states"] == 1);
  CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
}

TEST_CASE("only those that are zero") {
  const PassRun run = run_pass(step, lstm("other", "c0"));
  const Node& cell = *run.after->graph.nodes().back();
  CHECK(cell.input_count() == 6);
  CHECK(cell.input(5) == run.after->graph.find("other"));
  CHECK(check_unchanged(step, lstm("other", "_")).reason(step) ==
        "its initial states are not known to be zeros");
  CHECK(check_unchanged(step, lstm("h0", "_", "-0.0")).reason(step) ==
        "its initial states are not known to be zeros");
  check_unchanged(step, lstm("_", "_"));
}

TEST_CASE("constant states, GRU and RNN") {
  for (const auto& [op, gates] : std::vector<std::pair<std::string, int>>{{"GRU", 3}, {"RNN", 1}}) {
    const PassRun run = run_pass(step, fmt::format(R"(model ir=8 opset=17
input x: float32[3,2,2]
initializer w: float32[1,{1},2] = random(1)
initializer r: float32[1,{1},4] = random(2)
initializer h: float32[1,2,4] = zeros
y = {0}(x, w, r, _, _, h) {{hidden_size=4}}
output y: float32[3,1,2,4]
)",
                                                   op, gates * 4));
    CHECK(run.after->graph.nodes()[0]->input_count() == 3);
    CHECK(run.after->graph.initializers().size() == 2);
  }
}

}  // namespace
}  // namespace onnxpress
