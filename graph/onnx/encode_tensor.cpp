// TensorProto, SparseTensorProto, StringStringEntryProto.
#include <onnx/onnx-data_pb.h>

#include <cstring>
#include <utility>

#include "graph/onnx/encode.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using onnx::TensorProto;

// The field that holds integers as varints, for types where that can pay; 0 for others.
int varint_field(DType type) {
  switch (type) {
    case DType::int16:
    case DType::uint16:
    case DType::int32:
      return TensorProto::kInt32DataFieldNumber;
    case DType::int64:
      return TensorProto::kInt64DataFieldNumber;
    case DType::uint32:
    case DType::uint64:
      return TensorProto::kUint64DataFieldNumber;
    default:
      return 0;
  }
}

// The elements as packed varints when these take fewer bytes than the elements as they are: true
// for most shapes, axes and indices. Empty otherwise, and for tensors too large to be copied.
std::string shorter_varints(const Tensor& tensor) {
  constexpr std::size_t copy_up_to = std::size_t{1} << 20;
  const std::span<const std::byte> raw = tensor.bytes();
  std::string packed;
  if (varint_field(tensor.dtype()) == 0 || raw.size() > copy_up_to) return packed;
  const auto width = static_cast<std::size_t>(bits(tensor.dtype()) / 8);
  const int unused = is_signed_integer(tensor.dtype()) ? 64 - bits(tensor.dtype()) : 0;
  for (std::size_t i = 0; i < raw.size() && packed.size() < raw.size(); i += width) {
    std::uint64_t value = 0;
    std::memcpy(&value, raw.data() + i, width);
    // Protobuf extends the sign to 64 bits.
    if (unused > 0)  // protobuf extends the sign to 64 bits
      value = static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
    append_varint(packed, value);
  }
  if (packed.size() >= raw.size()) packed.clear();
  return packed;
}

void add_external(Message& message, std::size_t offset, std::size_t bytes,
                  const ExternalLayout& layout) {
  const std::pair<const char*, std::string> entries[] = {{"location", layout.file_name()},
                                                         {"offset", std::to_string(offset)},
                                                         {"length", std::to_string(bytes)}};
  for (const auto& [key, value] : entries)
    message.add_message(TensorProto::kExternalDataFieldNumber, encode_entry(key, value));
  message.add_int(TensorProto::kDataLocationFieldNumber, TensorProto::EXTERNAL);
}

}  // namespace

Message encode_entry(std::string_view key, std::string_view value) {
  Message message;
  message.add_string(onnx::StringStringEntryProto::kKeyFieldNumber, key);
  message.add_string(onnx::StringStringEntryProto::kValueFieldNumber, value);
  return message;
}

Message encode_tensor(std::string_view name, const Tensor& tensor, std::string_view doc_string,
                      const Metadata& metadata, std::string_view unknown_fields,
                      const ExternalLayout* external) {
  Message message;
  const std::size_t* offset = external ? external->find(tensor) : nullptr;
  const std::string varints = offset ? std::string() : shorter_varints(tensor);
  const bool raw = !offset && varints.empty() && !tensor.bytes().empty();
  for (const std::int64_t dim : tensor.dims()) message.add_int(TensorProto::kDimsFieldNumber, dim);
  message.add_int(TensorProto::kDataTypeFieldNumber, static_cast<std::int64_t>(tensor.dtype()));
  const auto add_varints = [&](int number) {
    if (!varints.empty() && varint_field(tensor.dtype()) == number)
      message.add_string(number, varints);
  };
  add_varints(TensorProto::kInt32DataFieldNumber);
  if (tensor.dtype() == DType::string)
    for (const std::string& text : tensor.strings())
      message.add_string(TensorProto::kStringDataFieldNumber, text);
  add_varints(TensorProto::kInt64DataFieldNumber);
  message.add_optional_string(TensorProto::kNameFieldNumber, name);
  if (raw) message.add_bytes(TensorProto::kRawDataFieldNumber, tensor.bytes());
  add_varints(TensorProto::kUint64DataFieldNumber);
  message.add_optional_string(TensorProto::kDocStringFieldNumber, doc_string);
  if (offset) add_external(message, *offset, tensor.byte_size(), *external);
  for (const auto& [key, value] : metadata)
    message.add_message(field::tensor_metadata, encode_entry(key, value));
  message.add_fields(unknown_fields);
  return message;
}

Message encode_tensor(const NamedTensor& tensor, const ExternalLayout* external) {
  return encode_tensor(tensor.name, tensor.tensor, tensor.doc_string, tensor.metadata,
                       tensor.unknown_fields, external);
}

Message encode_value(std::string_view name, const RuntimeValue& value) {
  using onnx::OptionalProto;
  using onnx::SequenceProto;
  if (value.is_tensor()) return encode_tensor(name, value.tensor(), {}, {}, {}, nullptr);
  Message message;
  message.add_optional_string(SequenceProto::kNameFieldNumber, name);
  if (value.kind() == Type::Kind::sequence) {
    message.add_int(SequenceProto::kElemTypeFieldNumber, SequenceProto::TENSOR);
    for (const RuntimeValue& element : value.elements())
      message.add_message(SequenceProto::kTensorValuesFieldNumber,
                          encode_tensor({}, element.tensor(), {}, {}, {}, nullptr));
    return message;
  }
  const RuntimeValue* content = value.content();
  if (content == nullptr) return message;
  const bool is_tensor = content->is_tensor();
  require(is_tensor || content->kind() == Type::Kind::sequence,
          "expected an optional tensor or sequence, found an optional of an optional");
  message.add_int(OptionalProto::kElemTypeFieldNumber,
                  is_tensor ? OptionalProto::TENSOR : OptionalProto::SEQUENCE);
  message.add_message(
      is_tensor ? OptionalProto::kTensorValueFieldNumber : OptionalProto::kSequenceValueFieldNumber,
      encode_value({}, *content));
  return message;
}

Message encode_sparse_tensor(const SparseTensor& sparse) {
  using onnx::SparseTensorProto;
  Message message;
  message.add_message(SparseTensorProto::kValuesFieldNumber, encode_tensor(sparse.values));
  message.add_message(SparseTensorProto::kIndicesFieldNumber, encode_tensor(sparse.indices));
  for (const std::int64_t dim : sparse.dims)
    message.add_int(SparseTensorProto::kDimsFieldNumber, dim);
  message.add_fields(sparse.unknown_fields);
  return message;
}

}  // namespace onnxpress::wire
