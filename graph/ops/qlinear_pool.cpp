// Pooling of 8-bit codes: QLinearAveragePool and NhwcMaxPool.
#include "graph/ops/attributes.h"
#include "graph/ops/pool.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

bool is_channels_last(const Node& node) {
  return node.is("NhwcMaxPool", "com.microsoft") || get_bool(node, "channels_last", false);
}

// The pooled values as float64 in the layout of the input, whose values exceed `zero_point`.
template <class Pool>
Tensor pooled(KernelContext& context, const Node& node, float zero_point, Pool&& pool) {
  const Tensor& x = context.required_input(0);
  codes_of(x);  // checks the type
  const PoolAttrs attrs = PoolAttrs::from(node);
  ThreadPool& threads = context.pool();
  Tensor planes = centred(threads, x, Spread(zero_point));
  if (is_channels_last(node) && x.rank() > 2) {
    const Dims dims = channels_first(x.dims());
    planes = transposed_batches(threads, planes, element_count(std::span(dims).subspan(2)), dims);
  }
  Tensor y = Tensor::uninitialized(DType::float64, attrs.output_dims(planes.dims()));
  pool(threads, attrs, planes, y);
  if (is_channels_last(node))
    return transposed_batches(threads, y, y.dim(1), channels_last(y.dims()));
  return y;
}

Kernel prepare_max(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const Tensor y =
        pooled(context, node, 0,
               [](ThreadPool& threads, const PoolAttrs& attrs, const Tensor& planes,
                  Tensor& result) { max_pool(threads, attrs, planes, result, nullptr); });
    const IntegerGrid grid(context.required_input(0).dtype());
    put_codes(context, y, [&](double value) { return grid.code(static_cast<float>(value)); });
  };
}

// x, scale, zero point, y's scale, zero point. As ONNX Runtime computes it: the sum of dequantized
// values in float32, and the zero point added before rounding.
Kernel prepare_average(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const DType type = context.required_input(0).dtype();
    const auto from = quantization_at(context, 1, type);
    const auto to = quantization_at(context, 3, type);
    const Tensor y = pooled(
        context, node, from.zero_point,
        [&](ThreadPool& threads, const PoolAttrs& attrs, const Tensor& planes, Tensor& result) {
          Tensor values = planes.cast(DType::float32);
          for (float& value : values.mutable_data<float>()) value *= from.scale;
          Tensor means = Tensor::uninitialized(DType::float32, result.dims());
          average_pool(threads, attrs, values, means);
          result = means.cast(DType::float64);
        });
    const IntegerGrid grid(type);
    put_codes(context, y, [&](double mean) {
      return grid.code(static_cast<float>(mean) / to.scale + to.zero_point);
    });
  };
}

void infer(InferContext& context) {
  const Node& node = context.node();
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  const PoolAttrs attrs = PoolAttrs::from(node);
  context.set_output(0, context.input_dtype(0),
                     is_channels_last(node) ? channels_last(attrs.output_shape(channels_first(*x)))
                                            : attrs.output_shape(*x));
}

OperandAxes axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || x->type.shape->size() < 2) return roles;
  const std::size_t rank = x->type.shape->size();
  const std::size_t channels = is_channels_last(node) ? rank - 1 : 1;
  roles[0].assign(rank, {.kind = AxisRole::Kind::window});
  for (const std::size_t axis : {std::size_t{0}, channels})
    roles[0][axis] = {.kind = AxisRole::Kind::output,
                      .output_axis = static_cast<std::int64_t>(axis)};
  return roles;
}

}  // namespace

OPERATORS(qlinear_pool) {
  registry.add(OpDef{.name = "QLinearAveragePool",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare_average,
                     .axes = axes});
  registry.add(OpDef{.name = "NhwcMaxPool",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare_max,
                     .axes = axes});
}

}  // namespace onnxpress
