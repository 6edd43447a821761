// DynamicQuantizeLinear.
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const DynamicRange range = DynamicRange::of(x.data<float>());
    context.forward_output(0, quantized(context.pool(), x, range));
    context.forward_output(1, Tensor::scalar(range.scale));
    context.forward_output(2, Tensor::scalar(range.zero_point));
  };
}

void infer(InferContext& context) {
  const Shape* x = context.input_shape(0);
  context.set_output(0, DType::uint8, x != nullptr ? std::optional(*x) : std::nullopt);
  context.set_output(1, DType::float32, Shape{});
  context.set_output(2, DType::uint8, Shape{});
}

OperandAxes axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape) return roles;
  for (std::size_t i = 0; i < x->type.shape->size(); ++i)
    roles[0].push_back(
        {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)});
  return roles;
}

}  // namespace

OPERATORS(dynamic_quantize_linear) {
  registry.add(OpDef{.name = "DynamicQuantizeLinear",
                     .since = 11,
                     .infer = infer,
                     .prepare = prepare,
                     .axes = axes});
}

}  // namespace onnxpress
