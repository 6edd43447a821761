// Protobuf wire bytes to messages.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/onnx/external_files.h"
#include "graph/onnx/messages.h"
#include "graph/onnx/wire.h"

namespace onnxpress::wire {

// What decoding needs beside the bytes, and what it learns on the way.
struct DecodeContext {
  std::shared_ptr<const void> owner;  // keeps the decoded bytes alive
  ExternalFiles& files;
  std::size_t dropped_fields = 0;  // unknown fields of messages that cannot carry them
};

// All throw WireError for malformed bytes and Error for what ONNX does not allow.
NamedTensor decode_tensor(Reader reader, DecodeContext& context);
SparseTensor decode_sparse_tensor(Reader reader, DecodeContext& context);
// Merges into `type`, as protobuf merges a repeated singular message.
void decode_type(Reader reader, Type& type, DecodeContext& context);
AttributeMessage decode_attribute(Reader reader, DecodeContext& context);
NodeMessage decode_node(Reader reader, DecodeContext& context);
ValueInfoMessage decode_value_info(Reader reader, DecodeContext& context);
void decode_graph(Reader reader, GraphMessage& graph, DecodeContext& context);
ModelMessage decode_model(Reader reader, DecodeContext& context);
// A StringStringEntryProto.
std::pair<std::string, std::string> decode_entry(Reader reader, DecodeContext& context);
// Elements of a SequenceProto of tensors.
std::vector<NamedTensor> decode_tensor_sequence(Reader reader, DecodeContext& context);
// An OptionalProto of a tensor or of a sequence of tensors; nothing when it is empty.
std::optional<std::vector<NamedTensor>> decode_optional(Reader reader, DecodeContext& context);

}  // namespace onnxpress::wire
