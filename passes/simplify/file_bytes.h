// What parts of a model take in its file (graph/onnx/writer.h), so that a rewrite can tell whether
// it would grow the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "graph/ir/graph.h"

namespace onnxpress {

// A field of `length` bytes with its tag and length.
std::int64_t field_bytes(std::size_t length);

// Integers that a file holds as varints where these are shorter.
bool may_be_varints(DType type);

// What the elements take.
std::size_t stored_bytes(const Tensor& tensor);

// At most what an initializer takes whose elements take `bytes`.
std::int64_t initializer_bytes(const std::string& name, const Dims& dims, std::size_t bytes,
                               bool also_input);

// At least what a node takes, subgraphs aside.
std::int64_t node_bytes(const Node& node);

// Whether the file grows where readers of `value` name `other` instead, although the node that
// makes `value` goes.
bool naming_grows(const Value& value, const Value& other);

}  // namespace onnxpress
