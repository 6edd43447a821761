// Models from text, and finders, for the tests of this folder.
#pragma once

#include <memory>
#include <string_view>

#include "graph/ir/parse.h"

namespace onnxpress {

struct TestModel {
  explicit TestModel(std::string_view text) : model(parse_model(text)), graph(model->graph) {}

  Value* value(std::string_view name) { return graph.find(name); }
  Node* node(std::string_view output) { return graph.find(output)->producer(); }

  std::unique_ptr<Model> model;
  Graph& graph;
};

}  // namespace onnxpress
