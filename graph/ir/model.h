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
  OpsetImports opsets;
  Metadata metadata;
  std::string unknown_fields;
  Graph body;
  std::vector<std::pair<std::string, Attribute>> attribute_defaults;  // subgraphs: parent is body
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

// XXH3-128 over what a model computes and how, canonically:
// - IR version, operator-set imports, model metadata, functions, unknown fields;
// - inputs and outputs of the main graph with names and types;
// - of every graph, in the order of the file: inputs, initializers (element type, dims, contents),
//   nodes (operator, attributes, subgraphs, metadata, edges) and outputs. Values go by the order of
//   their definition, wherever they are read.
// So the order of nodes and initializers counts, while names inside, types inside, documentation,
// the producer and how tensors are stored (raw, typed fields, external, view) do not. `with_names`
// adds those names, types (where `type_in_file`) and documentation, the producer and the versions.
Hash128 structural_hash(const Model& model, bool with_names = false);

// The model as text, in the language of graph/ir/parse.h: stable, for messages, tests and diffs.
// Tensors of more than 8 elements appear as the first digits of a hash, and names of tensors,
// documentation and unknown fields not at all. Without `inner_types`, only inputs, initializers and
// outputs show their types.
std::string to_text(const Model& model, bool inner_types = true);
std::string to_text(const Graph& graph, bool inner_types = true);

// Elements of the parameters, in all graphs: constants (initializers and Constant nodes) that are
// of a floating type, or of an integer type and read as a quantized weight, bias or table by an
// operator on codes, DequantizeLinear or (8 bits and fewer) Gather. A constant counts
// once however often it is read; a sparse one counts what it stores.
std::int64_t parameter_count(const Model& model);
// Whether a constant whose elements are of `type` is such a parameter.
bool is_parameter(const Value& constant, DType type);

}  // namespace onnxpress
