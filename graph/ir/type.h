// Types of values: element type and possibly symbolic shape, sequences, optionals, maps.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/base/dtype.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

// One dimension: a number, a named symbol ("batch"), or unknown.
class Dim {
 public:
  Dim() = default;                                            // unknown
  Dim(std::int64_t value) : value_(value) {}                  // NOLINT: a number is a Dim
  explicit Dim(std::string symbol) : symbol_(std::move(symbol)) {}

  bool is_known() const { return value_ >= 0; }
  bool is_symbol() const { return value_ < 0 && !symbol_.empty(); }
  std::int64_t value() const { return value_; }               // -1 unless known
  const std::string& symbol() const { return symbol_; }
  // "3", "batch", "?"; symbols with other than letters, digits, spaces and _.:/+*- in quotes.
  std::string to_string() const;
  bool operator==(const Dim&) const = default;                // two unknowns compare equal

  std::string denotation;

 private:
  std::int64_t value_ = -1;
  std::string symbol_;
};

using Shape = std::vector<Dim>;

Shape to_shape(const Dims& dims);
// The concrete dims, or nothing when one is not known.
std::optional<Dims> concrete(const Shape& shape);
std::string to_string(const Shape& shape);  // "[batch,3,?]"

// A TypeProto. For tensors: elem and shape (nothing: rank unknown).
struct Type {
  enum class Kind { unknown, tensor, sparse_tensor, sequence, optional, map, opaque };

  Kind kind = Kind::unknown;
  DType elem = DType::undefined;           // tensor, sparse_tensor: element; map: key
  std::optional<Shape> shape;              // tensor, sparse_tensor
  std::shared_ptr<const Type> inner;       // sequence, optional: element; map: value
  std::string opaque_domain, opaque_name;  // opaque
  std::string denotation;
  std::string unknown_fields;              // wire bytes this version does not know

  static Type tensor(DType elem) { return {.kind = Kind::tensor, .elem = elem}; }
  static Type tensor(DType elem, Shape shape) {
    return {.kind = Kind::tensor, .elem = elem, .shape = std::move(shape)};
  }
  static Type of(const Tensor& tensor) {
    return Type::tensor(tensor.dtype(), to_shape(tensor.dims()));
  }

  bool is_tensor() const { return kind == Kind::tensor; }
  bool operator==(const Type& other) const;
};

// "float32[batch,3]", "float32" (rank unknown), "sequence(int64[?])", "?" (unknown).
std::string to_string(const Type& type);
// `text` in double quotes, with backslash escapes for quotes, backslashes and control bytes.
std::string quoted(std::string_view text);

}  // namespace onnxpress
