// AttributeProto, NodeProto and GraphProto.
#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "graph/onnx/encode.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using onnx::AttributeProto;
using onnx::GraphProto;
using onnx::NodeProto;

// Adds an attribute's value under its field.
class ValueEncoder {
 public:
  ValueEncoder(Message& message, const EncodeContext& context)
      : message_(message), context_(context) {}

  void operator()(std::monostate) const {}
  void operator()(float value) const { message_.add_float(AttributeProto::kFFieldNumber, value); }
  void operator()(std::int64_t value) const {
    message_.add_int(AttributeProto::kIFieldNumber, value);
  }
  void operator()(const std::string& value) const {
    message_.add_string(AttributeProto::kSFieldNumber, value);
  }
  void operator()(const NamedTensor& value) const {
    message_.add_message(AttributeProto::kTFieldNumber,
                         encode_tensor(value, context_.external_attributes));
  }
  void operator()(const std::unique_ptr<Graph>& value) const {
    message_.add_message(AttributeProto::kGFieldNumber, encode_graph(*value, context_));
  }
  void operator()(const SparseTensor& value) const {
    message_.add_message(AttributeProto::kSparseTensorFieldNumber, encode_sparse_tensor(value));
  }
  void operator()(const Type& value) const {
    message_.add_message(AttributeProto::kTpFieldNumber, encode_type(value));
  }
  void operator()(const std::vector<float>& list) const {
    for (const float value : list) message_.add_float(AttributeProto::kFloatsFieldNumber, value);
  }
  void operator()(const std::vector<std::int64_t>& list) const {
    for (const std::int64_t value : list) message_.add_int(AttributeProto::kIntsFieldNumber, value);
  }
  void operator()(const std::vector<std::string>& list) const {
    for (const std::string& value : list)
      message_.add_string(AttributeProto::kStringsFieldNumber, value);
  }
  void operator()(const std::vector<NamedTensor>& list) const {
    for (const NamedTensor& value : list)
      message_.add_message(AttributeProto::kTensorsFieldNumber,
                           encode_tensor(value, context_.external_attributes));
  }
  void operator()(const std::vector<std::unique_ptr<Graph>>& list) const {
    for (const auto& value : list)
      message_.add_message(AttributeProto::kGraphsFieldNumber, encode_graph(*value, context_));
  }
  void operator()(const std::vector<SparseTensor>& list) const {
    for (const SparseTensor& value : list)
      message_.add_message(AttributeProto::kSparseTensorsFieldNumber, encode_sparse_tensor(value));
  }
  void operator()(const std::vector<Type>& list) const {
    for (const Type& value : list)
      message_.add_message(AttributeProto::kTypeProtosFieldNumber, encode_type(value));
  }

 private:
  Message& message_;
  const EncodeContext& context_;
};

Message encode_initializer(const Value& value, const ExternalLayout* external) {
  const Initializer& initializer = *value.initializer();
  return encode_tensor(value.name(), initializer.tensor, initializer.doc_string,
                       initializer.metadata, initializer.unknown_fields, external);
}

Message encode_sparse_initializer(const Value& value) {
  SparseTensor sparse = *value.initializer()->sparse;
  sparse.values.name = value.name();
  return encode_sparse_tensor(sparse);
}

// Lists what has a declared type and is neither input nor output.
void add_value_info(Message& message, const Graph& graph, bool constants_are_inputs) {
  const auto add = [&](const Value* value) {
    if (!value || !value->type_in_file || value->is_input()) return;
    if (std::ranges::find(value->output_of(), &graph) != value->output_of().end()) return;
    message.add_message(GraphProto::kValueInfoFieldNumber, encode_value_info(*value));
  };
  if (!constants_are_inputs)
    for (const Value* value : graph.initializers()) add(value);
  for (const Node* node : graph.nodes())
    for (const Value* value : node->outputs()) add(value);
}

}  // namespace

Message encode_attribute(std::string_view name, const Attribute& attribute,
                         const EncodeContext& context) {
  Message message;
  message.add_string(AttributeProto::kNameFieldNumber, name);
  if (attribute.ref.empty()) std::visit(ValueEncoder(message, context), attribute.value);
  message.add_optional_string(AttributeProto::kDocStringFieldNumber, attribute.doc_string);
  message.add_int(AttributeProto::kTypeFieldNumber, attribute.kind());
  message.add_optional_string(AttributeProto::kRefAttrNameFieldNumber, attribute.ref);
  message.add_fields(attribute.unknown_fields);
  return message;
}

Message encode_node(const Node& node, const EncodeContext& context) {
  Message message;
  for (const Value* input : node.inputs())
    message.add_string(NodeProto::kInputFieldNumber, input ? input->name() : std::string_view());
  for (const Value* output : node.outputs())
    message.add_string(NodeProto::kOutputFieldNumber, output ? output->name() : std::string_view());
  message.add_optional_string(NodeProto::kNameFieldNumber, node.name);
  message.add_string(NodeProto::kOpTypeFieldNumber, node.op_type());
  for (const auto& [name, attribute] : node.attributes())
    message.add_message(NodeProto::kAttributeFieldNumber,
                        encode_attribute(name, attribute, context));
  message.add_optional_string(NodeProto::kDocStringFieldNumber, node.doc_string);
  message.add_optional_string(NodeProto::kDomainFieldNumber, node.domain());
  message.add_optional_string(field::node_overload, node.overload());
  for (const auto& [key, value] : node.metadata)
    message.add_message(field::node_metadata, encode_entry(key, value));
  message.add_fields(node.unknown_fields);
  return message;
}

Message encode_constant_node(const Value& value, const EncodeContext& context) {
  const bool sparse = value.initializer()->sparse != nullptr;
  Message attribute;
  attribute.add_string(AttributeProto::kNameFieldNumber, sparse ? "sparse_value" : "value");
  if (!sparse)
    attribute.add_message(AttributeProto::kTFieldNumber,
                          encode_initializer(value, context.external_attributes));
  attribute.add_int(AttributeProto::kTypeFieldNumber,
                    sparse ? AttributeProto::SPARSE_TENSOR : AttributeProto::TENSOR);
  if (sparse)
    attribute.add_message(AttributeProto::kSparseTensorFieldNumber,
                          encode_sparse_initializer(value));
  Message node;
  node.add_string(NodeProto::kOutputFieldNumber, value.name());
  node.add_string(NodeProto::kOpTypeFieldNumber, "Constant");
  node.add_message(NodeProto::kAttributeFieldNumber, attribute);
  return node;
}

Message encode_graph(const Graph& graph, const EncodeContext& context) {
  const bool as_nodes = writes_constants_as_nodes(graph, context.model);
  const bool as_inputs = context.model.ir_version <= 3 && !as_nodes;
  std::vector<const Value*> constants, dense, sparse;
  for (const Value* value : graph.initializers()) {
    if (value->is_constant()) constants.push_back(value);
    if (!value->is_constant() || !as_nodes)
      (value->initializer()->sparse ? sparse : dense).push_back(value);
  }

  Message message;
  if (as_nodes)
    for (const Value* value : constants)
      message.add_message(GraphProto::kNodeFieldNumber, encode_constant_node(*value, context));
  for (const Node* node : graph.nodes())
    message.add_message(GraphProto::kNodeFieldNumber, encode_node(*node, context));
  message.add_optional_string(GraphProto::kNameFieldNumber, graph.name);
  for (const Value* value : dense)
    message.add_message(GraphProto::kInitializerFieldNumber,
                        encode_initializer(*value, context.external));
  message.add_optional_string(GraphProto::kDocStringFieldNumber, graph.doc_string);
  for (const Value* input : graph.inputs())
    message.add_message(GraphProto::kInputFieldNumber, encode_value_info(*input));
  if (as_inputs)
    for (const Value* value : constants)
      message.add_message(GraphProto::kInputFieldNumber, encode_value_info(*value));
  for (const Value* output : graph.outputs())
    message.add_message(GraphProto::kOutputFieldNumber, encode_value_info(*output));
  add_value_info(message, graph, as_inputs);
  for (const Value* value : sparse)
    message.add_message(GraphProto::kSparseInitializerFieldNumber,
                        encode_sparse_initializer(*value));
  for (const auto& [key, value] : graph.metadata)
    message.add_message(field::graph_metadata, encode_entry(key, value));
  message.add_fields(graph.unknown_fields);
  return message;
}

}  // namespace onnxpress::wire
