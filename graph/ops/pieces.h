// Tensors cut along an axis and joined along one, for operators whose parts are values of their
// own: sequences, loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "graph/ir/tensor.h"

namespace onnxpress {

// Elements [begin, begin + count) of `tensor` along `axis`, which must be there. Any type.
Tensor take(const Tensor& tensor, std::size_t axis, std::int64_t begin, std::int64_t count);
// Dims of the parts (at least one) joined along `axis`; throws Error when rank, element type or a
// dim other than that of the axis differ.
Dims joined_dims(std::span<const Tensor* const> parts, std::size_t axis);
// The parts one after another along `axis`. Errors as joined_dims.
Tensor join(std::span<const Tensor> parts, std::size_t axis);
// The parts, of equal dims, along a new axis in front of `axis`.
Tensor stack(std::span<const Tensor> parts, std::size_t axis);

}  // namespace onnxpress
