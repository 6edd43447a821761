// Expand and Tile.
#include "graph/ops/broadcasting.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_expand(const PrepareContext&) {
  return [](KernelContext& context) {
    const Dims target = context.required_input(1).to_ints();
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Dims dims = broadcast(x.dims(), target);
      put_view(inner, 0, x, {.dims = dims, .strides = broadcast_strides(x.dims(), dims)}, dims);
    });
  };
}

void infer_expand(InferContext& context) {
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (auto target = context.input_symbolic(1); target && x != nullptr)
    shape = broadcast(*x, *target);
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

Kernel prepare_tile(const PrepareContext&) {
  return [](KernelContext& context) {
    const auto repeats = context.required_input(1).to_ints();
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(repeats.size() == x.rank(), "expected {} repeats, found {}", x.rank(),
              repeats.size());
      const auto strides = row_strides(x.dims());
      StridedView view;
      Dims dims;
      for (std::size_t i = 0; i < x.rank(); ++i) {
        require(repeats[i] >= 0, "expected repeats of at least 0, found {}", to_string(repeats));
        view.dims.insert(view.dims.end(), {repeats[i], x.dim(i)});
        view.strides.insert(view.strides.end(), {0, strides[i]});
        dims.push_back(element_count(std::span(view.dims).last(2)));
      }
      put_view(inner, 0, x, view, dims);
    });
  };
}

void infer_tile(InferContext& context) {
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr) {
    shape = Shape(x->size());
    if (const auto repeats = context.input_symbolic(1)) {
      require(repeats->size() == x->size(), "expected {} repeats, found {}", x->size(),
              repeats->size());
      for (std::size_t i = 0; i < x->size(); ++i) {
        const Dim factors[] = {(*x)[i], (*repeats)[i]};
        (*shape)[i] = product(factors);
      }
    }
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(expand) {
  registry.add(
      OpDef{.name = "Expand", .since = 8, .infer = infer_expand, .prepare = prepare_expand});
  registry.add(OpDef{.name = "Tile", .since = 6, .infer = infer_tile, .prepare = prepare_tile});
}

}  // namespace onnxpress
