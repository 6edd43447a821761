#include "graph/ir/runtime_value.h"

#include <algorithm>
#include <iterator>

#include "graph/base/error.h"

namespace onnxpress {
namespace {

const char* kind_name(Type::Kind kind) {
  switch (kind) {
    case Type::Kind::sequence:
      return "a sequence";
    case Type::Kind::optional:
      return "an optional";
    default:
      return "a tensor";
  }
}

Type type_without_shape(const RuntimeValue& value) {
  return value.is_tensor() ? Type::tensor(value.tensor().dtype()) : type_of(value);
}

}  // namespace

RuntimeValue RuntimeValue::sequence(std::vector<RuntimeValue> elements) {
  RuntimeValue value;
  value.kind_ = Type::Kind::sequence;
  value.elements_ = std::make_shared<const std::vector<RuntimeValue>>(std::move(elements));
  return value;
}

RuntimeValue RuntimeValue::empty_optional() {
  RuntimeValue value = sequence({});
  value.kind_ = Type::Kind::optional;
  return value;
}

RuntimeValue RuntimeValue::filled_optional(RuntimeValue element) {
  RuntimeValue value = sequence({std::move(element)});
  value.kind_ = Type::Kind::optional;
  return value;
}

const std::vector<RuntimeValue>& RuntimeValue::elements() const {
  if (kind_ != Type::Kind::sequence) fail_kind(Type::Kind::sequence);
  return *elements_;
}

const RuntimeValue* RuntimeValue::content() const {
  if (kind_ != Type::Kind::optional) fail_kind(Type::Kind::optional);
  return elements_->empty() ? nullptr : &elements_->front();
}

bool RuntimeValue::equals(const RuntimeValue& other) const {
  if (kind_ != other.kind_) return false;
  if (is_tensor()) return tensor_.equals(other.tensor_);
  return std::ranges::equal(
      *elements_, *other.elements_,
      [](const RuntimeValue& a, const RuntimeValue& b) { return a.equals(b); });
}

void RuntimeValue::fail_kind(Type::Kind wanted) const {
  fail("expected {}, found {}", kind_name(wanted), kind_name(kind_));
}

Type type_of(const RuntimeValue& value) {
  if (value.is_tensor()) return Type::of(value.tensor());
  Type type{.kind = value.kind()};
  Type inner;
  if (value.kind() == Type::Kind::optional) {
    if (value.content() != nullptr) inner = type_without_shape(*value.content());
  } else if (!value.elements().empty()) {
    inner = type_without_shape(value.elements().front());
    for (const RuntimeValue& element : value.elements())
      if (type_without_shape(element) != inner) inner = Type();
  }
  type.inner = std::make_shared<const Type>(std::move(inner));
  return type;
}

std::vector<Tensor> to_tensors(std::vector<RuntimeValue> values) {
  std::vector<Tensor> tensors;
  tensors.reserve(values.size());
  for (RuntimeValue& value : values) tensors.push_back(std::move(value).tensor());
  return tensors;
}

}  // namespace onnxpress
