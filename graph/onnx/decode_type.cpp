// TypeProto, TensorShapeProto, ValueInfoProto.
#include "graph/onnx/decode.h"
#include "graph/onnx/encode_wire.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using Kind = Type::Kind;
using onnx::TensorShapeProto;
using onnx::TypeProto;
using Dimension = onnx::TensorShapeProto_Dimension;

Dim decode_dim(Reader reader, DecodeContext& context) {
  Dim dim;
  std::string denotation;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case varint(Dimension::kDimValueFieldNumber):
        dim = field.integer() < 0 ? Dim() : Dim(field.integer());
        break;
      case delimited(Dimension::kDimParamFieldNumber):
        dim = Dim(field.string());
        break;
      case delimited(Dimension::kDenotationFieldNumber):
        denotation = field.string();
        break;
      default:
        ++context.dropped_fields;
    }
  }
  dim.denotation = std::move(denotation);
  return dim;
}

// Returns the shape's unknown fields.
std::string decode_shape(Reader reader, Shape& shape, DecodeContext& context) {
  std::string unknown;
  for (Field field; reader.next(field);) {
    if (field.tag == delimited(TensorShapeProto::kDimFieldNumber))
      shape.push_back(decode_dim(reader.nested(field), context));
    else
      field.keep_in(unknown);
  }
  return unknown;
}

// Tensor and SparseTensor have the same fields. Returns unknown fields.
std::string decode_tensor_type(Reader reader, Type& type, DecodeContext& context) {
  using TensorType = onnx::TypeProto_Tensor;
  std::string unknown;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case varint(TensorType::kElemTypeFieldNumber):
        type.elem = static_cast<DType>(static_cast<std::int32_t>(field.value));
        break;
      case delimited(TensorType::kShapeFieldNumber): {
        if (!type.shape) type.shape.emplace();
        const std::string inner = decode_shape(reader.nested(field), *type.shape, context);
        if (!inner.empty()) append_delimited(unknown, TensorType::kShapeFieldNumber, inner);
        break;
      }
      default:
        field.keep_in(unknown);
    }
  }
  return unknown;
}

void decode_inner(Reader reader, Type& type, DecodeContext& context) {
  auto inner = std::make_shared<Type>();
  if (type.inner) *inner = *type.inner;
  decode_type(reader, *inner, context);
  type.inner = std::move(inner);
}

// Sequence and Optional have the same field.
std::string decode_container_type(Reader reader, Type& type, DecodeContext& context) {
  std::string unknown;
  for (Field field; reader.next(field);) {
    if (field.tag == delimited(onnx::TypeProto_Sequence::kElemTypeFieldNumber))
      decode_inner(reader.nested(field), type, context);
    else
      field.keep_in(unknown);
  }
  return unknown;
}

std::string decode_map_type(Reader reader, Type& type, DecodeContext& context) {
  std::string unknown;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case varint(onnx::TypeProto_Map::kKeyTypeFieldNumber):
        type.elem = static_cast<DType>(static_cast<std::int32_t>(field.value));
        break;
      case delimited(onnx::TypeProto_Map::kValueTypeFieldNumber):
        decode_inner(reader.nested(field), type, context);
        break;
      default:
        field.keep_in(unknown);
    }
  }
  return unknown;
}

std::string decode_opaque_type(Reader reader, Type& type, DecodeContext&) {
  std::string unknown;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(onnx::TypeProto_Opaque::kDomainFieldNumber):
        type.opaque_domain = field.string();
        break;
      case delimited(onnx::TypeProto_Opaque::kNameFieldNumber):
        type.opaque_name = field.string();
        break;
      default:
        field.keep_in(unknown);
    }
  }
  return unknown;
}

struct TypeCase {
  int number;
  Kind kind;
  std::string (*decode)(Reader, Type&, DecodeContext&);
};

constexpr TypeCase type_cases[] = {
    {TypeProto::kTensorTypeFieldNumber, Kind::tensor, decode_tensor_type},
    {TypeProto::kSparseTensorTypeFieldNumber, Kind::sparse_tensor, decode_tensor_type},
    {TypeProto::kSequenceTypeFieldNumber, Kind::sequence, decode_container_type},
    {TypeProto::kOptionalTypeFieldNumber, Kind::optional, decode_container_type},
    {TypeProto::kMapTypeFieldNumber, Kind::map, decode_map_type},
    {TypeProto::kOpaqueTypeFieldNumber, Kind::opaque, decode_opaque_type},
};

// The member of the oneof that the field is, or nullptr.
const TypeCase* find_case(std::uint32_t tag) {
  for (const TypeCase& one : type_cases)
    if (delimited(one.number) == tag) return &one;
  return nullptr;
}

// `unknown_fields` without what belonged to a member of the oneof that another has replaced.
std::string without_members(const std::string& unknown_fields) {
  std::string rest;
  Reader reader(std::as_bytes(std::span(unknown_fields)));
  for (Field field; reader.next(field);)
    if (!find_case(field.tag)) field.keep_in(rest);
  return rest;
}

}  // namespace

void decode_type(Reader reader, Type& type, DecodeContext& context) {
  for (Field field; reader.next(field);) {
    if (const TypeCase* found = find_case(field.tag)) {
      if (type.kind != found->kind)
        type = {.kind = found->kind,
                .denotation = std::move(type.denotation),
                .unknown_fields = without_members(type.unknown_fields)};
      // A second field of the same number merges into the first: so the member's unknown fields
      // can be kept beside it.
      const std::string unknown = found->decode(reader.nested(field), type, context);
      if (!unknown.empty()) append_delimited(type.unknown_fields, found->number, unknown);
    } else if (field.tag == delimited(TypeProto::kDenotationFieldNumber)) {
      type.denotation = field.string();
    } else {
      field.keep_in(type.unknown_fields);
    }
  }
}

ValueInfoMessage decode_value_info(Reader reader, DecodeContext& context) {
  using onnx::ValueInfoProto;
  ValueInfoMessage info;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(ValueInfoProto::kNameFieldNumber):
        info.name = field.string();
        break;
      case delimited(ValueInfoProto::kTypeFieldNumber):
        decode_type(reader.nested(field), info.type, context);
        break;
      case delimited(ValueInfoProto::kDocStringFieldNumber):
        info.doc_string = field.string();
        break;
      case delimited(field::value_info_metadata):
        info.metadata.push_back(decode_entry(reader.nested(field), context));
        break;
      default:
        field.keep_in(info.unknown_fields);
    }
  }
  return info;
}

}  // namespace onnxpress::wire
