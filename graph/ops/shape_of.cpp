// Shape and Size.
#include "graph/ops/shape_of.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_shape(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const Dims& dims = context.required_input(0).dims();
    const ShapeBounds bounds = ShapeBounds::of(node, dims.size());
    Tensor& out =
        context.output(0, DType::int64, {static_cast<std::int64_t>(bounds.last - bounds.first)});
    std::copy(dims.begin() + static_cast<std::ptrdiff_t>(bounds.first),
              dims.begin() + static_cast<std::ptrdiff_t>(bounds.last),
              out.mutable_data<std::int64_t>().begin());
  };
}

void infer_shape(InferContext& context) {
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, DType::int64, Shape(1));
  const ShapeBounds bounds = ShapeBounds::of(context.node(), x->size());
  context.set_output(0, DType::int64, Shape{static_cast<std::int64_t>(bounds.last - bounds.first)});
  context.set_output_symbolic(0, Shape(x->begin() + static_cast<std::ptrdiff_t>(bounds.first),
                                       x->begin() + static_cast<std::ptrdiff_t>(bounds.last)));
}

Kernel prepare_size(const PrepareContext&) {
  return [](KernelContext& context) {
    context.output(0, DType::int64, {}).mutable_data<std::int64_t>()[0] =
        context.required_input(0).size();
  };
}

void infer_size(InferContext& context) {
  context.set_output(0, DType::int64, Shape{});
  if (const Shape* x = context.input_shape(0)) context.set_output_symbolic(0, Shape{product(*x)});
}

}  // namespace

ShapeBounds ShapeBounds::of(const Node& shape, std::size_t rank) {
  const auto limit = static_cast<std::int64_t>(rank);
  const auto clamped = [&](std::int64_t at) {
    return static_cast<std::size_t>(std::clamp<std::int64_t>(at < 0 ? at + limit : at, 0, limit));
  };
  const std::size_t first = clamped(get_int(shape, "start", 0));
  return {first, std::max(first, clamped(get_int(shape, "end", limit)))};
}

OPERATORS(shape_of) {
  registry.add(OpDef{.name = "Shape", .infer = infer_shape, .prepare = prepare_shape});
  registry.add(OpDef{.name = "Size", .infer = infer_size, .prepare = prepare_size});
}

}  // namespace onnxpress
