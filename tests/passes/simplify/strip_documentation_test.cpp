#include <doctest/doctest.h>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::unique_ptr<Model> documented() {
  auto model = parse_model(R"(model ir=8 opset=17
metadata "author" = "somebody"
input x: float32[2]
initializer w: float32[2] = {1,2}
a: float32[2] = Add(x, w)
y = Relu(a)
output y: float32[2]
)");
  model->doc_string = "a model";
  model->producer_name = "exporter";
  model->graph.doc_string = "a graph";
  model->graph.inputs()[0]->doc_string = "an input";
  model->graph.find("w")->doc_string = "a weight";
  Node* add = model->graph.nodes()[0];
  add->doc_string = "an addition";
  add->metadata.emplace_back("stack_trace", "somewhere");
  // training_info (field 20), then a field of a number that nobody knows.
  model->unknown_fields = std::string("\xa2\x01\x02hi\xf2\x07\x01x", 9);
  return model;
}

TEST_CASE("doc strings and training information go, metadata and producer stay") {
  const PassRun run = run_pass("strip_documentation", documented());
  CHECK(run.outcome.counts["doc_strings"] == 5);
  CHECK(run.outcome.counts["training"] == 1);
  CHECK(run.after->doc_string.empty());
  CHECK(run.after->graph.nodes()[0]->doc_string.empty());
  CHECK(run.after->unknown_fields == std::string("\xf2\x07\x01x", 4));
  CHECK(run.after->metadata.size() == 1);
  CHECK(run.after->graph.nodes()[0]->metadata.size() == 1);
  CHECK(run.after->producer_name == "exporter");
  CHECK(run.after->graph.find("a")->type_in_file);
  CHECK_FALSE(run_pass("strip_documentation", run.after->clone()).outcome.changed);
}

TEST_CASE("metadata, producer and types go when asked for") {
  const PassRun run =
      run_pass("strip_documentation{metadata=true,producer=true,types=true}", documented());
  CHECK(run.outcome.counts["metadata"] == 2);
  CHECK(run.outcome.counts["producer"] == 1);
  CHECK(run.outcome.counts["types"] == 1);
  CHECK(run.after->metadata.empty());
  CHECK(run.after->graph.nodes()[0]->metadata.empty());
  CHECK(run.after->producer_name.empty());
  CHECK_FALSE(run.after->graph.find("a")->type_in_file);
}

}  // namespace
}  // namespace onnxpress
