#include <doctest/doctest.h>

#include "graph/onnx/writer.h"
#include "graph/ops/transpose.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

// An embedding [20,16] and an output layer: its transpose, or not.
std::unique_ptr<Model> embedding(bool tied,
                                 std::string_view outputs = "output y: float32[n,20]\n") {
  auto model = parse_model(fmt::format(R"(model ir=8 opset=17
input x: int64[n]
initializer table: float32[20,16] = random(1)
initializer head: float32[16,20] = random(2)
e = Gather(table, x)
y = MatMul(e, head)
{})",
                                       outputs));
  Value* head = model->graph.find("head");
  Tensor tensor = transposed(*model->graph.find("table")->constant(), {1, 0});
  if (!tied) tensor.mutable_data<float>()[100] += 1;
  model->graph.set_initializer(head, tensor);
  return model;
}

TEST_CASE("of a matrix and its transpose one is stored") {
  const PassRun run = run_pass("tie_transposes", embedding(true));
  CHECK(run.outcome.counts["matrices"] == 1);
  CHECK(run.outcome.counts["bytes"] == 1280);
  CHECK(run.after->graph.initializers().size() == 1);
  CHECK(run.after->graph.node_count() == 3);
  CHECK(serialized_size(*run.after) + 1000 < serialized_size(*run.before));
  CHECK_FALSE(run_pass("tie_transposes", run.after->clone()).outcome.changed);
  // It stays so: folding the Transpose would grow the file.
  CHECK_FALSE(run_pass("simplify", run.after->clone()).outcome.changed);
}

TEST_CASE("others stay") {
  CHECK_FALSE(run_pass("tie_transposes", embedding(false)).outcome.changed);
  CHECK_FALSE(run_pass("tie_transposes{min_bytes=2000}", embedding(true)).outcome.changed);
}

TEST_CASE("graph outputs stay constants") {
  const std::string y = "output y: float32[n,20]\n", head = "output head: float32[16,20]\n",
                    table = "output table: float32[20,16]\n";
  const PassRun one = run_pass("tie_transposes", embedding(true, y + head));
  CHECK(one.outcome.changed);
  CHECK(one.after->graph.find("head")->constant());
  CHECK_FALSE(run_pass("tie_transposes", embedding(true, y + head + table)).outcome.changed);
}

}  // namespace
}  // namespace onnxpress
