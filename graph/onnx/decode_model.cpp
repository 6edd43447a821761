// FunctionProto and ModelProto.
#include "graph/onnx/decode.h"
#include "graph/onnx/fields.h"
#include "graph/onnx/validate.h"

namespace onnxpress::wire {

namespace {

using onnx::FunctionProto;
using onnx::ModelProto;

void decode_opset_import(Reader reader, OpsetImports& opsets, DecodeContext& context) {
  using onnx::OperatorSetIdProto;
  std::string domain;
  std::int64_t version = 0;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(OperatorSetIdProto::kDomainFieldNumber):
        domain = field.string();
        break;
      case varint(OperatorSetIdProto::kVersionFieldNumber):
        version = field.integer();
        break;
      default:
        ++context.dropped_fields;
    }
  }
  if (domain == "ai.onnx") domain.clear();
  const auto [import, is_new] = opsets.emplace(domain, version);
  require(is_new || import->second == version,
          "operator set '{}' is imported at versions {} and {}",
          domain.empty() ? "ai.onnx" : domain, import->second, version);
}

void decode_function_fields(Reader reader, FunctionMessage& function, DecodeContext& context) {
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(FunctionProto::kNameFieldNumber):
        function.name = field.string();
        break;
      case delimited(FunctionProto::kInputFieldNumber):
        function.inputs.push_back(field.text());
        break;
      case delimited(FunctionProto::kOutputFieldNumber):
        function.outputs.push_back(field.text());
        break;
      case delimited(FunctionProto::kAttributeFieldNumber):
        function.attribute_names.push_back(field.string());
        break;
      case delimited(FunctionProto::kNodeFieldNumber):
        function.nodes.push_back(decode_node(reader.nested(field), context));
        break;
      case delimited(FunctionProto::kDocStringFieldNumber):
        function.doc_string = field.string();
        break;
      case delimited(FunctionProto::kOpsetImportFieldNumber):
        decode_opset_import(reader.nested(field), function.opsets, context);
        break;
      case delimited(FunctionProto::kDomainFieldNumber):
        function.domain = field.string();
        break;
      case delimited(field::function_attribute_proto):
        function.attribute_defaults.push_back(decode_attribute(reader.nested(field), context));
        break;
      case delimited(field::function_value_info):
        function.value_info.push_back(decode_value_info(reader.nested(field), context));
        break;
      case delimited(field::function_overload):
        function.overload = field.string();
        break;
      case delimited(field::function_metadata):
        function.metadata.push_back(decode_entry(reader.nested(field), context));
        break;
      default:
        field.keep_in(function.unknown_fields);
    }
  }
}

FunctionMessage decode_function(Reader reader, DecodeContext& context) {
  FunctionMessage function;
  in_context([&] { return fmt::format("function '{}'", function.name); },
             [&] { decode_function_fields(reader, function, context); });
  require(!function.name.empty(), "a function has no name");
  if (function.domain == "ai.onnx") function.domain.clear();
  return function;
}

}  // namespace

ModelMessage decode_model(Reader reader, DecodeContext& context) {
  ModelMessage model;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case varint(ModelProto::kIrVersionFieldNumber):
        model.ir_version = field.integer();
        check_ir_version(model.ir_version);  // before anything that a newer version may bring
        break;
      case delimited(ModelProto::kProducerNameFieldNumber):
        model.producer_name = field.string();
        break;
      case delimited(ModelProto::kProducerVersionFieldNumber):
        model.producer_version = field.string();
        break;
      case delimited(ModelProto::kDomainFieldNumber):
        model.domain = field.string();
        break;
      case varint(ModelProto::kModelVersionFieldNumber):
        model.model_version = field.integer();
        break;
      case delimited(ModelProto::kDocStringFieldNumber):
        model.doc_string = field.string();
        break;
      case delimited(ModelProto::kGraphFieldNumber):
        model.has_graph = true;
        decode_graph(reader.nested(field), model.graph, context);
        break;
      case delimited(ModelProto::kOpsetImportFieldNumber):
        decode_opset_import(reader.nested(field), model.opsets, context);
        break;
      case delimited(ModelProto::kMetadataPropsFieldNumber):
        model.metadata.push_back(decode_entry(reader.nested(field), context));
        break;
      case delimited(ModelProto::kFunctionsFieldNumber):
        model.functions.push_back(decode_function(reader.nested(field), context));
        break;
      default:
        field.keep_in(model.unknown_fields);
    }
  }
  return model;
}

}  // namespace onnxpress::wire
