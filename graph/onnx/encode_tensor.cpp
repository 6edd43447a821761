// TensorProto, SparseTensorProto, StringStringEntryProto.
#include "graph/onnx/encode.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using onnx::TensorProto;

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
  for (const std::int64_t dim : tensor.dims()) message.add_int(TensorProto::kDimsFieldNumber, dim);
  message.add_int(TensorProto::kDataTypeFieldNumber, static_cast<std::int64_t>(tensor.dtype()));
  if (tensor.dtype() == DType::string)
    for (const std::string& text : tensor.strings())
      message.add_string(TensorProto::kStringDataFieldNumber, text);
  message.add_optional_string(TensorProto::kNameFieldNumber, name);

  const std::size_t* offset = external ? external->find(tensor) : nullptr;
  if (!offset && tensor.dtype() != DType::string)
    message.add_bytes(TensorProto::kRawDataFieldNumber, tensor.bytes());
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

Message encode_sparse_tensor(const SparseTensor& sparse) {
  using onnx::SparseTensorProto;
  Message message;
  message.add_message(SparseTensorProto::kValuesFieldNumber, encode_tensor(sparse.values));
  message.add_message(SparseTensorProto::kIndicesFieldNumber,
                      encode_tensor(sparse.indices));
  for (const std::int64_t dim : sparse.dims)
    message.add_int(SparseTensorProto::kDimsFieldNumber, dim);
  message.add_fields(sparse.unknown_fields);
  return message;
}

}  // namespace onnxpress::wire
