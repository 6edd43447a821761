#include "graph/ops/infer.h"

#include <algorithm>
#include <utility>

namespace onnxpress {
namespace {

Dim broadcast_dim(const Dim& a, const Dim& b, const Shape& left, const Shape& right) {
  if (a.is_known() && b.is_known()) {
    if (a.value() == b.value() || b.value() == 1) return a.value();
    require(a.value() == 1, "shapes {} and {} do not broadcast", to_string(left), to_string(right));
    return b.value();
  }
  if (a.is_known()) return a.value() == 1 ? b : a;
  if (b.is_known()) return b.value() == 1 ? a : b;
  return same_dim(a, b) ? a : Dim();
}

}  // namespace

DType InferContext::input_dtype(std::size_t index) const {
  const Type* type = input_type(index);
  return type != nullptr && type->is_tensor() ? type->elem : DType::undefined;
}

const Shape* InferContext::input_shape(std::size_t index) const {
  const Type* type = input_type(index);
  return type != nullptr && type->is_tensor() && type->shape ? &*type->shape : nullptr;
}

std::optional<Dims> InferContext::input_dims(std::size_t index) const {
  const Shape* shape = input_shape(index);
  return shape != nullptr ? concrete(*shape) : std::nullopt;
}

std::optional<std::vector<std::int64_t>> InferContext::input_ints(std::size_t index) const {
  const Tensor* value = input_value(index);
  if (value == nullptr || !(is_integer(value->dtype()) || value->dtype() == DType::boolean))
    return std::nullopt;
  return value->to_ints();
}

Shape broadcast(const Shape& a, const Shape& b) {
  const std::size_t rank = std::max(a.size(), b.size());
  Shape result(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    const Dim left = i + a.size() < rank ? Dim(1) : a[i + a.size() - rank];
    const Dim right = i + b.size() < rank ? Dim(1) : b[i + b.size() - rank];
    result[i] = broadcast_dim(left, right, a, b);
  }
  return result;
}

Dims broadcast(const Dims& a, const Dims& b) {
  // Negative ones would be unknown dims.
  for (const Dims* dims : {&a, &b})
    for (const std::int64_t dim : *dims)
      require(dim >= 0, "expected dims of at least 0, found {}", to_string(*dims));
  return *concrete(broadcast(to_shape(a), to_shape(b)));
}

std::int64_t normalize_axis(std::int64_t axis, std::size_t rank) {
  const auto limit = static_cast<std::int64_t>(rank);
  require(-limit <= axis && axis < limit, "axis {} is out of range for rank {}", axis, rank);
  return axis < 0 ? axis + limit : axis;
}

std::vector<std::int64_t> normalize_axes(std::vector<std::int64_t> axes, std::size_t rank) {
  for (std::int64_t& axis : axes) axis = normalize_axis(axis, rank);
  std::sort(axes.begin(), axes.end());
  const auto twice = std::adjacent_find(axes.begin(), axes.end());
  require(twice == axes.end(), "axis {} is listed twice", twice == axes.end() ? 0 : *twice);
  return axes;
}

std::int64_t checked_index(std::int64_t index, std::int64_t size) {
  require(-size <= index && index < size, "index {} is out of range for {} elements", index, size);
  return index < 0 ? index + size : index;
}

bool same_dim(const Dim& a, const Dim& b) {
  if (a.is_known() || b.is_known()) return a.value() == b.value();
  return a.is_symbol() && a.symbol() == b.symbol();
}

Dim unify(const Dim& a, const Dim& b, std::string_view what) {
  if (a.is_known() && b.is_known())
    require(a.value() == b.value(), "expected {} to agree, found {} and {}", what, a.value(),
            b.value());
  if (a.is_known()) return a;
  if (b.is_known()) return b;
  return a.is_symbol() ? a : b;
}

Dim product(std::span<const Dim> dims) {
  std::int64_t known = 1;
  const Dim* open = nullptr;
  bool several = false;
  for (const Dim& dim : dims) {
    if (!dim.is_known()) {
      several = several || open != nullptr;
      open = &dim;
    } else if (dim.value() == 0) {
      return 0;
    } else {
      require(!__builtin_mul_overflow(known, dim.value(), &known), "product of dims overflows");
    }
  }
  if (open == nullptr) return known;
  return known == 1 && !several ? *open : Dim();
}

void infer_same_as_first(InferContext& context) {
  if (const Type* type = context.input_type(0)) {
    Type copy = *type;
    copy.denotation.clear();
    context.set_output(0, std::move(copy));
  }
}

void infer_broadcast(InferContext& context) {
  std::optional<Shape> shape;
  DType type = DType::undefined;
  bool all = true;
  for (std::size_t i = 0; i < context.node().input_count(); ++i) {
    if (!context.has_input(i)) continue;
    if (type == DType::undefined) type = context.input_dtype(i);
    const Shape* next = context.input_shape(i);
    all = all && next != nullptr;
    if (next != nullptr) shape = shape ? broadcast(*shape, *next) : *next;
  }
  if (type == DType::undefined) return;
  context.set_output(0, type, all ? shape : std::nullopt);
}

}  // namespace onnxpress
