#include "graph/ops/pieces.h"

#include <algorithm>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/ops/compute_type.h"

namespace onnxpress {
namespace {

// A tensor seen as `outer` rows of what lies from `axis` on, in units that std::copy moves: bytes,
// or strings.
struct Rows {
  std::int64_t outer, row;

  Rows(const Tensor& tensor, std::size_t axis)
      : outer(element_count(std::span(tensor.dims()).first(axis))),
        row(element_count(std::span(tensor.dims()).subspan(axis))) {
    if (tensor.dtype() != DType::string) row *= bits(tensor.dtype()) / 8;
  }
};

// Copies `width` units of each row of `from`, from unit `first` on, to unit `at` of `to`'s rows.
template <class From, class To>
void copy_rows(const From& from, std::int64_t from_row, std::int64_t first, To&& to,
               std::int64_t to_row, std::int64_t at, std::int64_t outer, std::int64_t width) {
  for (std::int64_t o = 0; o < outer; ++o)
    std::copy_n(from.begin() + o * from_row + first, width, to.begin() + o * to_row + at);
}

}  // namespace

Tensor take(const Tensor& tensor, std::size_t axis, std::int64_t begin, std::int64_t count) {
  const DType type = tensor.dtype();
  if (is_sub_byte(type))
    return take(tensor.cast(movable_type(type)), axis, begin, count).cast(type);
  require(
      begin >= 0 && count >= 0 && begin <= tensor.dim(axis) && count <= tensor.dim(axis) - begin,
      "expected elements within {}, found {} from {} on", tensor.dim(axis), count, begin);
  Dims dims = tensor.dims();
  dims[axis] = count;
  const Rows from(tensor, axis);
  const std::int64_t step = tensor.dim(axis) > 0 ? from.row / tensor.dim(axis) : 0;
  if (type == DType::string) {
    std::vector<std::string> strings(static_cast<std::size_t>(element_count(dims)));
    copy_rows(tensor.strings(), from.row, begin * step, strings, count * step, 0, from.outer,
              count * step);
    return Tensor::of_strings(std::move(dims), std::move(strings));
  }
  Tensor result = Tensor::uninitialized(type, std::move(dims));
  copy_rows(tensor.bytes(), from.row, begin * step, result.mutable_bytes(), count * step, 0,
            from.outer, count * step);
  return result;
}

Dims joined_dims(std::span<const Tensor* const> parts, std::size_t axis) {
  require(!parts.empty(), "expected at least one tensor to join, found none");
  const Tensor& first = *parts.front();
  require(axis < first.rank(), "axis {} is out of range for rank {}", axis, first.rank());
  Dims dims = first.dims();
  for (const Tensor* part : parts.subspan(1)) {
    require(part->rank() == first.rank(), "expected inputs of one rank, found {} and {}",
            to_string(first.dims()), to_string(part->dims()));
    Dims expected = first.dims();
    expected[axis] = part->dim(axis);
    require(part->dims() == expected && part->dtype() == first.dtype(),
            "expected inputs alike but for axis {}, found {}{} and {}{}", axis, name(first.dtype()),
            to_string(first.dims()), name(part->dtype()), to_string(part->dims()));
    dims[axis] += part->dim(axis);
  }
  return dims;
}

Tensor join(std::span<const Tensor> parts, std::size_t axis) {
  std::vector<const Tensor*> pointers;
  for (const Tensor& part : parts) pointers.push_back(&part);
  Dims dims = joined_dims(pointers, axis);
  const DType type = parts.front().dtype();
  if (is_sub_byte(type)) {
    std::vector<Tensor> moved;
    for (const Tensor& part : parts) moved.push_back(part.cast(movable_type(type)));
    return join(moved, axis).cast(type);
  }
  std::int64_t at = 0;
  if (type == DType::string) {
    std::vector<std::string> strings(static_cast<std::size_t>(element_count(dims)));
    const std::int64_t row = element_count(std::span(dims).subspan(axis));
    for (const Tensor& part : parts) {
      const Rows from(part, axis);
      copy_rows(part.strings(), from.row, 0, strings, row, at, from.outer, from.row);
      at += from.row;
    }
    return Tensor::of_strings(std::move(dims), std::move(strings));
  }
  Tensor result = Tensor::uninitialized(type, std::move(dims));
  const auto target = result.mutable_bytes();
  const Rows to(result, axis);
  for (const Tensor& part : parts) {
    const Rows from(part, axis);
    copy_rows(part.bytes(), from.row, 0, target, to.row, at, from.outer, from.row);
    at += from.row;
  }
  return result;
}

Tensor stack(std::span<const Tensor> parts, std::size_t axis) {
  std::vector<Tensor> wider;
  for (const Tensor& part : parts) {
    require(part.dims() == parts.front().dims(), "expected dims {} as in the first, found {}",
            to_string(parts.front().dims()), to_string(part.dims()));
    Dims dims = part.dims();
    dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis), 1);
    wider.push_back(part.reshaped(std::move(dims)));
  }
  return join(wider, axis);
}

}  // namespace onnxpress
