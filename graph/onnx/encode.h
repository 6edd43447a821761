// IR to protobuf wire bytes, in the order of field numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "graph/ir/model.h"
#include "graph/ir/runtime_value.h"
#include "graph/onnx/encode_wire.h"
#include "graph/onnx/external_layout.h"

namespace onnxpress::wire {

struct EncodeContext {
  const Model& model;
  const ExternalLayout* external = nullptr;             // places of initializers outside the file
  const ExternalLayout* external_attributes = nullptr;  // the same for tensors in attributes
};

// Messages refer to the bytes of large tensors: the model must outlive them.
Message encode_model(const Model& model, const ExternalLayout* external = nullptr);
// With `external`, a tensor that has a place there only refers to it.
Message encode_tensor(std::string_view name, const Tensor& tensor, std::string_view doc_string,
                      const Metadata& metadata, std::string_view unknown_fields,
                      const ExternalLayout* external);
Message encode_tensor(const NamedTensor& tensor, const ExternalLayout* external = nullptr);
// A TensorProto, SequenceProto or OptionalProto. Only tensors are elements of sequences, and these
// or tensors of optionals: anything else is an Error.
Message encode_value(std::string_view name, const RuntimeValue& value);
Message encode_sparse_tensor(const SparseTensor& sparse);
Message encode_type(const Type& type);
Message encode_value_info(const Value& value);
Message encode_entry(std::string_view key, std::string_view value);
Message encode_attribute(std::string_view name, const Attribute& attribute,
                         const EncodeContext& context);
Message encode_node(const Node& node, const EncodeContext& context);
// A Constant node that makes `value`, where the format has no place for an initializer.
Message encode_constant_node(const Value& value, const EncodeContext& context);
Message encode_graph(const Graph& graph, const EncodeContext& context);

}  // namespace onnxpress::wire
