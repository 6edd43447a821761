// FunctionProto and ModelProto.
#include "graph/onnx/encode.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using onnx::FunctionProto;
using onnx::ModelProto;

Message encode_opset_import(const std::string& domain, std::int64_t version) {
  Message message;
  message.add_optional_string(onnx::OperatorSetIdProto::kDomainFieldNumber, domain);
  message.add_int(onnx::OperatorSetIdProto::kVersionFieldNumber, version);
  return message;
}

// All values of a function body, inputs included, have their types here.
void add_value_info(Message& message, const Graph& body) {
  const auto add = [&](const Value* value) {
    if (value && value->type_in_file)
      message.add_message(field::function_value_info, encode_value_info(*value));
  };
  for (const Value* value : body.inputs()) add(value);
  for (const Value* value : body.initializers()) add(value);
  for (const Node* node : body.nodes())
    for (const Value* value : node->outputs()) add(value);
}

Message encode_function(const Function& function, const EncodeContext& context) {
  const Graph& body = function.body;
  Message message;
  message.add_string(FunctionProto::kNameFieldNumber, function.name);
  for (const Value* input : body.inputs())
    message.add_string(FunctionProto::kInputFieldNumber, input->name());
  for (const Value* output : body.outputs())
    message.add_string(FunctionProto::kOutputFieldNumber, output->name());
  for (const std::string& name : function.attribute_names)
    message.add_string(FunctionProto::kAttributeFieldNumber, name);
  // A FunctionProto has no initializers.
  for (const Value* value : body.initializers()) {
    require(body.opset() > 0,
            "function '{}' holds the constant '{}', but imports no ai.onnx "
            "operator set for a Constant node",
            function.name, value->name());
    message.add_message(FunctionProto::kNodeFieldNumber, encode_constant_node(*value, context));
  }
  for (const Node* node : body.nodes())
    message.add_message(FunctionProto::kNodeFieldNumber, encode_node(*node, context));
  message.add_optional_string(FunctionProto::kDocStringFieldNumber, function.doc_string);
  for (const auto& [domain, version] : function.opsets)
    message.add_message(FunctionProto::kOpsetImportFieldNumber,
                        encode_opset_import(domain, version));
  message.add_optional_string(FunctionProto::kDomainFieldNumber, function.domain);
  for (const auto& [name, value] : function.attribute_defaults)
    message.add_message(field::function_attribute_proto, encode_attribute(name, value, context));
  add_value_info(message, body);
  message.add_optional_string(field::function_overload, function.overload);
  for (const auto& [key, value] : function.metadata)
    message.add_message(field::function_metadata, encode_entry(key, value));
  message.add_fields(function.unknown_fields);
  return message;
}

}  // namespace

Message encode_model(const Model& model, const ExternalLayout* external) {
  const EncodeContext context{
      .model = model,
      .external = external,
      .external_attributes = external && external->has_attributes() ? external : nullptr};
  Message message;
  message.add_int(ModelProto::kIrVersionFieldNumber, model.ir_version);
  message.add_optional_string(ModelProto::kProducerNameFieldNumber, model.producer_name);
  message.add_optional_string(ModelProto::kProducerVersionFieldNumber, model.producer_version);
  message.add_optional_string(ModelProto::kDomainFieldNumber, model.domain);
  if (model.model_version != 0)
    message.add_int(ModelProto::kModelVersionFieldNumber, model.model_version);
  message.add_optional_string(ModelProto::kDocStringFieldNumber, model.doc_string);
  message.add_message(ModelProto::kGraphFieldNumber, encode_graph(model.graph, context));
  for (const auto& [domain, version] : model.opsets)
    message.add_message(ModelProto::kOpsetImportFieldNumber, encode_opset_import(domain, version));
  for (const auto& [key, value] : model.metadata)
    message.add_message(ModelProto::kMetadataPropsFieldNumber, encode_entry(key, value));
  for (const auto& function : model.functions)
    message.add_message(ModelProto::kFunctionsFieldNumber, encode_function(*function, context));
  message.add_fields(model.unknown_fields);
  return message;
}

}  // namespace onnxpress::wire
