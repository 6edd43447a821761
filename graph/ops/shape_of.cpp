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

ShapeBounds ShapeBounds::of(const Node& node, std::size_t rank) {
  const auto limit = static_cast<std::int64_t>(rank);
  const auto clamped = [&](std::int64_t at) {
    return static_cast<std::size_t>(std::clamp<std::int64_t>(at < 0 ? at + limit : at, 0, limit));
  };
  const std::size_t first = clamped(get_int(node, "start", 0));
  return {first, std::max(first, clamped(get_int(node, "end", limit)))};
}

bool can_list_part(std::int64_t opset) { return opset >= 15; }

OpCall make_shape(std::int64_t opset, std::size_t rank, ShapeBounds bounds) {
  OpCall call{.op_type = "Shape", .attributes = {}, .constants = {}};
  const bool whole = bounds.first == 0 && bounds.last == rank;
  require(whole || can_list_part(opset), "a Shape of opset {} cannot list dims {} to {} of {}",
          opset, bounds.first, bounds.last, rank);
  if (bounds.first != 0) call.attributes.emplace("start", static_cast<std::int64_t>(bounds.first));
  if (bounds.last != rank) call.attributes.emplace("end", static_cast<std::int64_t>(bounds.last));
  return call;
}

OPERATORS(shape_of) {
  registry.add(OpDef{.name = "Shape", .infer = infer_shape, .prepare = prepare_shape});
  registry.add(OpDef{.name = "Size", .infer = infer_size, .prepare = prepare_size});
}

}  // namespace onnxpress
