#include <cstring>

#include "graph/base/convert.h"
#include "graph/ir/attribute.h"

namespace onnxpress {
namespace {

// Row-major positions of the entries in the dense tensor.
std::vector<std::int64_t> linear_indices(const SparseTensor& sparse, std::int64_t count) {
  const Tensor& indices = sparse.indices.tensor;
  const std::int64_t entries = sparse.values.tensor.size();
  const auto rank = static_cast<std::int64_t>(sparse.dims.size());
  require(indices.dtype() == DType::int64, "sparse indices: expected int64, found {}",
          name(indices.dtype()));
  const std::span<const std::int64_t> data = indices.data<std::int64_t>();
  std::vector<std::int64_t> linear;
  if (indices.dims() == Dims{entries}) {
    linear.assign(data.begin(), data.end());
  } else {
    require(indices.dims() == Dims{entries, rank},
            "sparse indices: expected shape [{}] or [{},{}], found {}", entries, entries, rank,
            to_string(indices.dims()));
    for (std::int64_t entry = 0; entry < entries; ++entry) {
      std::int64_t position = 0;
      for (std::int64_t axis = 0; axis < rank; ++axis) {
        const std::int64_t index = data[static_cast<std::size_t>(entry * rank + axis)];
        const std::int64_t dim = sparse.dims[static_cast<std::size_t>(axis)];
        if (index < 0 || index >= dim)
          fail("sparse index {} is out of range for axis {} of {}", index, axis,
               to_string(sparse.dims));
        position = position * dim + index;
      }
      linear.push_back(position);
    }
  }
  for (const std::int64_t position : linear)
    require(position >= 0 && position < count, "sparse index {} is out of range for {} elements",
            position, count);
  return linear;
}

}  // namespace

Tensor SparseTensor::dense() const {
  const Tensor& source = values.tensor;
  require(source.defined() && source.rank() == 1, "sparse values: expected one axis, found {}{}",
          name(source.dtype()), to_string(source.dims()));
  const std::vector<std::int64_t> positions = linear_indices(*this, element_count(dims));
  const DType type = source.dtype();
  if (type == DType::string) {
    std::vector<std::string> strings(static_cast<std::size_t>(element_count(dims)));
    for (std::size_t i = 0; i < positions.size(); ++i)
      strings[static_cast<std::size_t>(positions[i])] = source.strings()[i];
    return Tensor::of_strings(dims, std::move(strings));
  }
  Tensor result(type, dims);
  std::byte* const target = result.mutable_bytes().data();
  const std::size_t width = packed_bytes(type, 1);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const auto position = static_cast<std::size_t>(positions[i]);
    if (is_sub_byte(type))
      set_packed(target, type, position, get_packed(source.bytes().data(), type, i));
    else
      std::memcpy(target + position * width, source.bytes().data() + i * width, width);
  }
  return result;
}

}  // namespace onnxpress
