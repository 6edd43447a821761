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

// How often every axis is repeated: a list. Before opset 6 a count and the only axis it is for, of
// any number type.
std::vector<std::int64_t> repeats_of(const Node& node, const Tensor& given, const Tensor* axis,
                                     std::size_t rank) {
  if (node.opset() >= 6) return given.to_ints();
  require(given.size() == 1 && axis != nullptr && axis->size() == 1,
          "expected one count and one axis, found more or none");
  std::vector<std::int64_t> repeats(rank, 1);
  const std::int64_t place = normalize_axis(axis->cast(DType::int64).to_ints()[0], rank);
  repeats[static_cast<std::size_t>(place)] = given.cast(DType::int64).to_ints()[0];
  return repeats;
}

Kernel prepare_tile(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const auto repeats = repeats_of(node, context.required_input(1), context.input(2),
                                    context.required_input(0).rank());
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

std::optional<Shape> repeats_known(const InferContext& context, std::size_t rank) {
  if (context.node().opset() >= 6) return context.input_symbolic(1);
  const Tensor* count = context.input_value(1);
  const Tensor* axis = context.input_value(2);
  if (count == nullptr || axis == nullptr) return std::nullopt;
  return to_shape(repeats_of(context.node(), *count, axis, rank));
}

void infer_tile(InferContext& context) {
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr) {
    shape = Shape(x->size());
    if (const auto repeats = repeats_known(context, x->size())) {
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
  registry.add(OpDef{.name = "Tile", .infer = infer_tile, .prepare = prepare_tile});
}

}  // namespace onnxpress
