// TypeProto and ValueInfoProto.
#include "graph/onnx/encode.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using onnx::TypeProto;

Message encode_shape(const Shape& shape) {
  using Dimension = onnx::TensorShapeProto_Dimension;
  Message message;
  for (const Dim& dim : shape) {
    Message encoded;
    if (dim.is_known()) encoded.add_int(Dimension::kDimValueFieldNumber, dim.value());
    if (dim.is_symbol()) encoded.add_string(Dimension::kDimParamFieldNumber, dim.symbol());
    encoded.add_optional_string(Dimension::kDenotationFieldNumber, dim.denotation);
    message.add_message(onnx::TensorShapeProto::kDimFieldNumber, encoded);
  }
  return message;
}

// Tensor and SparseTensor have the same fields.
Message encode_tensor_type(const Type& type) {
  using TensorType = onnx::TypeProto_Tensor;
  Message message;
  if (type.elem != DType::undefined)
    message.add_int(TensorType::kElemTypeFieldNumber, static_cast<std::int64_t>(type.elem));
  if (type.shape) message.add_message(TensorType::kShapeFieldNumber, encode_shape(*type.shape));
  return message;
}

// Sequence and Optional have the same field.
Message encode_container_type(const Type& type) {
  Message message;
  if (type.inner)
    message.add_message(onnx::TypeProto_Sequence::kElemTypeFieldNumber, encode_type(*type.inner));
  return message;
}

Message encode_map_type(const Type& type) {
  Message message;
  if (type.elem != DType::undefined)
    message.add_int(onnx::TypeProto_Map::kKeyTypeFieldNumber, static_cast<std::int64_t>(type.elem));
  if (type.inner)
    message.add_message(onnx::TypeProto_Map::kValueTypeFieldNumber, encode_type(*type.inner));
  return message;
}

Message encode_opaque_type(const Type& type) {
  Message message;
  message.add_optional_string(onnx::TypeProto_Opaque::kDomainFieldNumber, type.opaque_domain);
  message.add_optional_string(onnx::TypeProto_Opaque::kNameFieldNumber, type.opaque_name);
  return message;
}

void add_kind(Message& message, const Type& type) {
  switch (type.kind) {
    case Type::Kind::unknown:
      break;
    case Type::Kind::tensor:
      message.add_message(TypeProto::kTensorTypeFieldNumber, encode_tensor_type(type));
      break;
    case Type::Kind::sparse_tensor:
      message.add_message(TypeProto::kSparseTensorTypeFieldNumber, encode_tensor_type(type));
      break;
    case Type::Kind::sequence:
      message.add_message(TypeProto::kSequenceTypeFieldNumber, encode_container_type(type));
      break;
    case Type::Kind::optional:
      message.add_message(TypeProto::kOptionalTypeFieldNumber, encode_container_type(type));
      break;
    case Type::Kind::map:
      message.add_message(TypeProto::kMapTypeFieldNumber, encode_map_type(type));
      break;
    case Type::Kind::opaque:
      message.add_message(TypeProto::kOpaqueTypeFieldNumber, encode_opaque_type(type));
      break;
  }
}

}  // namespace

Message encode_type(const Type& type) {
  Message message;
  add_kind(message, type);
  message.add_optional_string(TypeProto::kDenotationFieldNumber, type.denotation);
  message.add_fields(type.unknown_fields);
  return message;
}

Message encode_value_info(const Value& value) {
  using onnx::ValueInfoProto;
  Message message;
  message.add_string(ValueInfoProto::kNameFieldNumber, value.name());
  const Message type = encode_type(value.type);
  if (!type.empty()) message.add_message(ValueInfoProto::kTypeFieldNumber, type);
  message.add_optional_string(ValueInfoProto::kDocStringFieldNumber, value.doc_string);
  for (const auto& [key, text] : value.metadata)
    message.add_message(field::value_info_metadata, encode_entry(key, text));
  message.add_fields(value.unknown_fields);
  return message;
}

}  // namespace onnxpress::wire
