#include <doctest/doctest.h>

#include "passes/core/registry.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("a model is raised to the opset that is asked for, once") {
  const PassRun run = check_pass("upgrade_opset{target=17}",
                                 R"(model ir=7 opset=11
input x: float32[2,1,3]
y = Squeeze(x) {axes=[1]}
output y: float32[2,3]
)",
                                 R"(model ir=8 opset=17
input x: float32[2,1,3]
initializer y_axes: int64[1] = {1}
y = Squeeze(x, y_axes)
output y: float32[2,3]
)");
  CHECK(run.outcome.counts["nodes_rewritten"] == 1);
}

TEST_CASE("an older opset is not gone back to, and the pass says so") {
  const PassRun run = check_unchanged("upgrade_opset{target=13}",
                                      "model ir=8 opset=17\ninput x: float32[2]\ny = Relu(x)\noutput y: float32[2]\n");
  REQUIRE(run.outcome.notes.size() == 1);
  CHECK(run.outcome.notes[0] == "LEFT AT OPSET 17: opsets are only raised, and 13 is older");
}

TEST_CASE("a model without operators of ai.onnx has no opset to raise") {
  const auto model = parse_model(R"(model ir=8 ai.onnx.ml=3
input x: float32[2]
y = ai.onnx.ml.Scaler(x) {offset=[1.0], scale=[2.0]}
output y: float32[2]
)");
  const Options options("upgrade_opset", passes().find("upgrade_opset").info().options, {});
  ThreadPool pool(1);
  PassContext context{.options = options, .pool = pool};
  const auto before = structural_hash(*model, true);
  const Outcome outcome = passes().find("upgrade_opset").run(*model, context);
  CHECK_FALSE(outcome.changed);
  REQUIRE(outcome.notes.size() == 1);
  CHECK(outcome.notes[0] == "the model imports no operators of ai.onnx");
  CHECK(structural_hash(*model, true) == before);
}

}  // namespace
}  // namespace onnxpress
