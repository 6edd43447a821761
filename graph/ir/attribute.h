// Node attributes: every kind of AttributeProto.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "graph/ir/tensor.h"
#include "graph/ir/type.h"

namespace onnxpress {

class Graph;

// StringStringEntryProto list, in file order.
using Metadata = std::vector<std::pair<std::string, std::string>>;

// A TensorProto: the tensor and what the file says beside it.
struct NamedTensor {
  std::string name;
  Tensor tensor;
  std::string doc_string;
  Metadata metadata;
  std::string unknown_fields;
};

// A SparseTensorProto: `values` [nnz], `indices` int64 [nnz] (linear) or [nnz, rank], `dims`.
struct SparseTensor {
  NamedTensor values;
  NamedTensor indices;
  Dims dims;
  std::string unknown_fields;

  // The dense tensor; throws Error on indices out of range or of a wrong shape.
  Tensor dense() const;
};

// An attribute's value, kinds in the order of AttributeProto.AttributeType.
using AttributeValue =
    std::variant<std::monostate, float, std::int64_t, std::string, NamedTensor,
                 std::unique_ptr<Graph>, std::vector<float>, std::vector<std::int64_t>,
                 std::vector<std::string>, std::vector<NamedTensor>,
                 std::vector<std::unique_ptr<Graph>>, SparseTensor, std::vector<SparseTensor>, Type,
                 std::vector<Type>>;

// Movable; a copy is made by clone_attribute (graph/ir/clone.h), since subgraphs refer to values
// around them. Inside a function body an attribute may instead refer to one of the function's
// (`ref`).
struct Attribute {
  AttributeValue value;
  std::string ref;        // ref_attr_name
  int ref_kind = 0;       // AttributeType when `ref` is set
  std::string doc_string;
  std::string unknown_fields;

  Attribute();
  template <class T>
  Attribute(T initial);  // NOLINT: node.attributes["axis"] = 1
  Attribute(Attribute&&) noexcept;
  Attribute& operator=(Attribute&&) noexcept;
  ~Attribute();

  // AttributeProto.AttributeType of the value (or ref_kind).
  int kind() const;
  // The graphs of a Graph or Graphs value, else none.
  std::vector<Graph*> subgraphs() const;
};

}  // namespace onnxpress
