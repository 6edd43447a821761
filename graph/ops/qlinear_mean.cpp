// Means of 8-bit codes: QLinearReduceMean and QLinearGlobalAveragePool.
#include <numeric>

#include "graph/ops/attributes.h"
#include "graph/ops/quantized.h"
#include "graph/ops/reduce.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Exact sums over `axes`, requantized with the count as part of the output's scale.
// Inputs: x, scale, zero point, y's scale, zero point.
void put_mean(KernelContext& context, const std::vector<std::int64_t>& axes, bool keepdims) {
  const Tensor& x = context.required_input(0);
  std::int64_t count = 1;
  for (const std::int64_t axis : axes) count *= x.dim(static_cast<std::size_t>(axis));
  require(count > 0, "expected at least one element to average, found {}", to_string(x.dims()));
  codes_of(x);  // checks the type
  const auto from = quantization_at(context, 1, x.dtype());
  const auto to = quantization_at(context, 3, x.dtype());
  const Tensor sums = reduce_sum(
      context.pool(), centred(context.pool(), x, Spread(from.zero_point)), axes, keepdims);
  Requantization requantization;
  requantization.a_scale = Spread(from.scale);
  requantization.b_scale = Spread(1.0f);
  requantization.y_scale = Spread(to.scale * static_cast<float>(count));
  requantization.y_zero_point = Spread(to.zero_point);
  requantization.type = x.dtype();
  requantization.put(context, sums);
}

struct ReduceMeanAttrs {
  std::vector<std::int64_t> axes;  // empty: all
  bool keepdims = true;

  static ReduceMeanAttrs from(const Node& node) {
    return {get_ints(node, "axes"), get_bool(node, "keepdims", true)};
  }
  std::vector<std::int64_t> effective(std::size_t rank) const {
    return ReduceAttrs::effective(axes, false, rank);
  }
};

Kernel prepare_reduce_mean(const PrepareContext& prepare) {
  return [attrs = ReduceMeanAttrs::from(prepare.node())](KernelContext& context) {
    put_mean(context, attrs.effective(context.required_input(0).rank()), attrs.keepdims);
  };
}

void infer_reduce_mean(InferContext& context) {
  const ReduceMeanAttrs attrs = ReduceMeanAttrs::from(context.node());
  std::optional<Shape> shape;
  if (const Shape* x = context.input_shape(0))
    shape = reduced_dims(*x, attrs.effective(x->size()), attrs.keepdims);
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes reduce_mean_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape) return roles;
  const ReduceMeanAttrs attrs = ReduceMeanAttrs::from(node);
  const std::size_t rank = x->type.shape->size();
  roles[0] = reduced_roles(rank, attrs.effective(rank), attrs.keepdims);
  return roles;
}

// The spatial axes: all but the first and the channels.
std::vector<std::int64_t> spatial_axes(const Node& node, std::size_t rank) {
  require(rank >= 2, "expected an input of at least 2 axes, found {}", rank);
  std::vector<std::int64_t> axes(rank - 2);
  std::iota(axes.begin(), axes.end(), get_bool(node, "channels_last", false) ? 1 : 2);
  return axes;
}

Kernel prepare_global_average(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    put_mean(context, spatial_axes(node, context.required_input(0).rank()), true);
  };
}

void infer_global_average(InferContext& context) {
  std::optional<Shape> shape;
  if (const Shape* x = context.input_shape(0))
    shape = reduced_dims(*x, spatial_axes(context.node(), x->size()), true);
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes global_average_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || x->type.shape->size() < 2) return roles;
  const std::size_t rank = x->type.shape->size();
  roles[0] = reduced_roles(rank, spatial_axes(node, rank), true);
  for (AxisRole& role : roles[0])
    if (role.kind == AxisRole::Kind::reduced) role.kind = AxisRole::Kind::window;
  return roles;
}

}  // namespace

OPERATORS(qlinear_mean) {
  registry.add(OpDef{.name = "QLinearReduceMean",
                     .domain = "com.microsoft",
                     .infer = infer_reduce_mean,
                     .prepare = prepare_reduce_mean,
                     .axes = reduce_mean_axes});
  registry.add(OpDef{.name = "QLinearGlobalAveragePool",
                     .domain = "com.microsoft",
                     .infer = infer_global_average,
                     .prepare = prepare_global_average,
                     .axes = global_average_axes});
}

}  // namespace onnxpress
