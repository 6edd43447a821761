// MaxUnpool.
#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"
#include "graph/ops/window.h"

namespace onnxpress {
namespace {

// Size of the axis that was pooled to `size`.
std::int64_t unpooled_size(const Window& window, std::size_t axis, std::int64_t size) {
  std::int64_t result = 0;
  const bool fits =
      !__builtin_mul_overflow(size - 1, window.strides[axis], &result) &&
      !__builtin_add_overflow(
          result, window.kernel[axis] - window.pads[axis] - window.pads[window.rank() + axis],
          &result);
  require(fits && result >= 0, "unpooling {} along spatial axis {} leaves no size", size, axis);
  return result;
}

Window window_of(const Node& node) {
  return Window::from(node, require_ints(node, "kernel_shape"));
}

void check_rank(const Window& window, std::size_t rank, const std::string& found) {
  require(rank == window.rank() + 2, "expected an input of {} axes, found {}", window.rank() + 2,
          found);
}

// Indices address a tensor of `inner` dims, which fills the front of one of `outer` dims.
template <class T>
void scatter(const T* values, std::span<const std::int64_t> indices, const Dims& inner,
             const Dims& outer, T* out) {
  std::fill_n(out, element_count(outer), T());
  const auto strides = row_strides(outer);
  const std::int64_t size = element_count(inner);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    require(0 <= indices[i] && indices[i] < size, "index {} is out of range for {} elements",
            indices[i], size);
    std::int64_t rest = indices[i];
    std::int64_t at = 0;
    for (std::size_t axis = inner.size(); axis-- > 0; rest /= inner[axis])
      at += rest % inner[axis] * strides[axis];
    out[at] = values[i];
  }
}

Kernel prepare_max_unpool(const PrepareContext& prepare) {
  return [window = window_of(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const Tensor& indices = context.required_input(1);
    check_rank(window, x.rank(), to_string(x.dims()));
    require(indices.dims() == x.dims(), "expected indices {}, found {}", to_string(x.dims()),
            to_string(indices.dims()));
    Dims inner = x.dims();
    for (std::size_t axis = 0; axis < window.rank(); ++axis)
      inner[axis + 2] = unpooled_size(window, axis, x.dim(axis + 2));
    const Tensor* given = context.input(2);
    const Dims outer = given != nullptr ? given->to_ints() : inner;
    bool holds = outer.size() == inner.size();
    for (std::size_t axis = 0; holds && axis < outer.size(); ++axis)
      holds = outer[axis] >= inner[axis];
    require(holds, "an output of {} does not hold {}", to_string(outer), to_string(inner));
    Tensor& y = context.output(0, x.dtype(), outer);
    dispatch_storage(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      scatter(reinterpret_cast<const T*>(x.aligned_bytes()), indices.data<std::int64_t>(), inner,
              outer, reinterpret_cast<T*>(y.mutable_bytes().data()));
    });
  };
}

void infer_max_unpool(InferContext& context) {
  const Window window = window_of(context.node());
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  check_rank(window, x->size(), to_string(*x));
  Shape shape{(*x)[0], (*x)[1]};
  shape.resize(x->size());
  if (context.has_input(2)) {
    const auto given = context.input_symbolic(2);
    shape = given && given->size() == x->size() ? *given : Shape(x->size());
  } else {
    for (std::size_t axis = 0; axis < window.rank(); ++axis)
      if ((*x)[axis + 2].is_known())
        shape[axis + 2] = unpooled_size(window, axis, (*x)[axis + 2].value());
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(max_unpool) {
  registry.add(OpDef{
      .name = "MaxUnpool", .since = 9, .infer = infer_max_unpool, .prepare = prepare_max_unpool});
}

}  // namespace onnxpress
