// ONNX messages as decoded, before names are resolved to values. Views point into the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress::wire {

struct ValueInfoMessage {
  std::string name;
  Type type;
  std::string doc_string;
  Metadata metadata;
  std::string unknown_fields;
};

struct GraphMessage;

// `value` holds every kind but graphs; those wait in `graphs` until their names can be resolved.
struct AttributeMessage {
  std::string name;
  Attribute value;
  bool is_graph = false;   // one graph
  bool is_graphs = false;  // a list of graphs
  std::vector<GraphMessage> graphs;
};

struct NodeMessage {
  std::vector<std::string_view> inputs;
  std::vector<std::string_view> outputs;
  std::string name, op_type, domain, overload, doc_string;
  std::vector<AttributeMessage> attributes;
  Metadata metadata;
  std::string unknown_fields;

  // As Node::describe().
  std::string describe() const;
};

struct GraphMessage {
  std::string name, doc_string;
  std::vector<NodeMessage> nodes;
  std::vector<NamedTensor> initializers;
  std::vector<SparseTensor> sparse_initializers;
  std::vector<ValueInfoMessage> inputs, outputs, value_info;
  Metadata metadata;
  std::string unknown_fields;
};

struct FunctionMessage {
  std::string domain, name, overload, doc_string;
  std::vector<std::string_view> inputs, outputs;
  std::vector<std::string> attribute_names;
  std::vector<AttributeMessage> attribute_defaults;
  std::vector<NodeMessage> nodes;
  std::vector<ValueInfoMessage> value_info;
  OpsetImports opsets;
  Metadata metadata;
  std::string unknown_fields;
};

struct ModelMessage {
  std::int64_t ir_version = 0;
  bool has_graph = false;
  GraphMessage graph;
  OpsetImports opsets;
  std::string producer_name, producer_version, domain, doc_string;
  std::int64_t model_version = 0;
  Metadata metadata;
  std::vector<FunctionMessage> functions;
  std::string unknown_fields;
};

}  // namespace onnxpress::wire
