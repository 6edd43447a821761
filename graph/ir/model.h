// Model: the main graph, model-local functions, operator sets and what a file says beside them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/base/hash.h"
#include "graph/ir/graph.h"

namespace onnxpress {

// A FunctionProto. The body's inputs carry no types.
struct Function {
  Function() : body(&opsets) {}
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

  std::string domain, name, overload, doc_string;
  std::vector<std::string> attribute_names;              // required
  std::vector<std::pair<std::string, Attribute>> attribute_defaults;
  OpsetImports opsets;
  Metadata metadata;
  std::string unknown_fields;
  Graph body;
};

class Model {
 public:
  Model() : graph(&opsets) {}
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  std::int64_t ir_version = 8;
  OpsetImports opsets;
  std::string producer_name, producer_version, domain, doc_string;
  std::int64_t model_version = 0;
  Metadata metadata;
  std::string unknown_fields;  // training info, configurations and whatever is newer
  bool external_data = false;  // tensors came from external files and go back to one
  Graph graph;
  std::vector<std::unique_ptr<Function>> functions;

  // A deep copy that shares tensor storage.
  std::unique_ptr<Model> clone() const;
  // The function a node calls, or nullptr.
  const Function* function(const Node& node) const;
  // Calls fn on the main graph, the function bodies and every nested graph.
  void for_each_graph(const std::function<void(Graph&)>& fn);
  void for_each_graph(const std::function<void(const Graph&)>& fn) const;
  // Inputs that a caller must give: those without a default.
  std::vector<Value*> required_inputs() const;
};

// Equal for models equal in structure: operators, attributes, edges, initializer contents, types,
// names at the boundary, metadata. Interior names, node order among independents' names and the
// storage form of tensors (raw, typed fields, external) do not count; `with_names` adds interior names.
Hash128 structural_hash(const Model& model, bool with_names = false);

// One line per input, initializer, node and output: stable text for messages, tests and diffs.
std::string to_text(const Model& model);
std::string to_text(const Graph& graph);

// Bytes of all constants (initializers and tensor attributes of Constant nodes) counted once per
// shared storage is not attempted: each is written once per occurrence, so each counts.
std::int64_t parameter_count(const Model& model);  // elements of float and quantized initializers

}  // namespace onnxpress
