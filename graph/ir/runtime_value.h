// What a value of a graph is when it runs: a tensor, a sequence or an optional.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "graph/ir/tensor.h"
#include "graph/ir/type.h"

namespace onnxpress {

// A value type; copies share their contents. Elements of sequences and optionals are again any of
// the three.
class RuntimeValue {
 public:
  RuntimeValue() = default;  // an undefined tensor; defined() is false
  RuntimeValue(Tensor tensor) : tensor_(std::move(tensor)) {}  // NOLINT: a tensor is a value
  static RuntimeValue sequence(std::vector<RuntimeValue> elements);
  static RuntimeValue empty_optional();
  static RuntimeValue filled_optional(RuntimeValue element);

  Type::Kind kind() const { return kind_; }  // tensor, sequence or optional
  bool is_tensor() const { return kind_ == Type::Kind::tensor; }
  bool defined() const { return !is_tensor() || tensor_.defined(); }
  // Throws Error when it is none.
  const Tensor& tensor() const& {
    if (!is_tensor()) fail_kind(Type::Kind::tensor);
    return tensor_;
  }
  Tensor tensor() && {
    if (!is_tensor()) fail_kind(Type::Kind::tensor);
    return std::move(tensor_);
  }
  // To be written; a value of another kind becomes an undefined tensor.
  Tensor& mutable_tensor() {
    if (!is_tensor()) *this = RuntimeValue();
    return tensor_;
  }
  // Of a sequence; throws Error when it is none.
  const std::vector<RuntimeValue>& elements() const;
  // Of an optional, nullptr when it is empty; throws Error when it is none.
  const RuntimeValue* content() const;

  // Equal kinds and structure, equal tensors (Tensor::equals).
  bool equals(const RuntimeValue& other) const;

 private:
  [[noreturn]] void fail_kind(Type::Kind wanted) const;

  Type::Kind kind_ = Type::Kind::tensor;
  Tensor tensor_;
  std::shared_ptr<const std::vector<RuntimeValue>> elements_;
};

// Its type. Elements of a sequence have the element type that all share, without a shape; what an
// empty sequence or optional would hold is unknown.
Type type_of(const RuntimeValue& value);

// All of them as tensors; throws Error when one is none.
std::vector<Tensor> to_tensors(std::vector<RuntimeValue> values);

}  // namespace onnxpress
