// The fixture that the tests of every pass family use.
#include <doctest/doctest.h>

#include "fake_pass.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view before = R"(model ir=8 opset=17
input x: float32[batch,2]
a: float32[batch,2] = Relu(x)
b: float32[batch,2] = Relu(a)
y: float32[batch,2] = Neg(b)
output y: float32[batch,2]
)";

void register_relu_pass() {
  static const bool done = [] {
    const RunFunction run = [](Model& model, PassContext& context) {
      const RuleCounts counts =
          apply_rules(model, {{.name = "relu_of_relu",
                               .pattern = Pattern::op("Relu", "", {Pattern::op("Relu", "first")}),
                               .when = {},
                               .replace = [](const Match& match, Patch& patch) {
                                 patch.replace(match.root->output(), match.value("first"));
                               }}});
      if (context.near_misses)
        for (const RuleCounts::Miss& miss : counts.misses)
          context.near_misses->push_back({miss.rule, miss.subject, miss.reason});
      return Outcome{.changed = counts.applied.at("relu_of_relu") > 0};
    };
    passes().add(std::make_unique<FakePass>(PassInfo{.name = "relu_of_relu", .summary = ""}, run));
    return true;
  }();
  static_cast<void>(done);
}

TEST_CASE("a pass as text in, text out") {
  register_relu_pass();
  const PassRun run = check_pass("relu_of_relu", before, R"(model ir=8 opset=17
input x: float32[batch,2]
a: float32[batch,2] = Relu(x)
y: float32[batch,2] = Neg(a)
output y: float32[batch,2]
)");
  CHECK(run.outcome.changed);
  REQUIRE(run.errors.size() == 1);
  CHECK(run.errors[0].max_abs == 0);
}

TEST_CASE("a pass that leaves a model alone says why") {
  register_relu_pass();
  const PassRun run = check_unchanged("relu_of_relu", R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x) "first"
y = Relu(a)
output y
output a
)");
  CHECK(run.reason("relu_of_relu") == "'a' (output of node 'first' (Relu)) is a graph output");
  CHECK(run.reason("other").empty());
}

}  // namespace
}  // namespace onnxpress
