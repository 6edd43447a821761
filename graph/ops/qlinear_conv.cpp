// ConvInteger, and QLinearConv of both domains.
#include "graph/ops/attributes.h"
#include "graph/ops/conv.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Which input is what.
struct Operands {
  std::size_t x, w, x_zero_point, w_zero_point;
};
constexpr Operands integer_operands{0, 1, 2, 3};
constexpr Operands qlinear_operands{0, 3, 2, 5};

// com.microsoft's QLinearConv takes [N,spatial...,C] too; the weights stay as they are.
bool is_channels_last(const Node& node) {
  return node.domain() == "com.microsoft" && get_bool(node, "channels_last", false);
}

Dims input_dims(const Node& node, const Dims& x) {
  return is_channels_last(node) ? channels_first(x) : x;
}

// The exact sums of products of what exceeds the zero points, channels first.
Tensor convolve_integers(KernelContext& context, const Node& node, const Operands& operands,
                         const Tensor* bias) {
  const auto centred_operand = [&](std::size_t index, std::size_t zero_point, std::size_t axis) {
    const Tensor& x = context.required_input(index);
    require(is_integer(x.dtype()), "input {}: expected int8 or uint8, found {}", index,
            name(x.dtype()));
    const Tensor* zero = context.input(zero_point);
    require(zero == nullptr || zero->dtype() == x.dtype(),
            "input {}: expected a zero point of type {}, found {}", zero_point, name(x.dtype()),
            zero == nullptr ? "none" : name(zero->dtype()));
    require(zero == nullptr || zero->rank() <= 1,
            "expected zero points of at most 1 axis, found {}", zero == nullptr ? 0 : zero->rank());
    return centred(context.pool(), x, zero != nullptr ? Spread(*zero, axis, x.rank()) : Spread());
  };
  Tensor x = centred_operand(operands.x, operands.x_zero_point, 1);
  const Tensor w = centred_operand(operands.w, operands.w_zero_point, 0);
  const Tensor* x_zero_point = context.input(operands.x_zero_point);
  require(x_zero_point == nullptr || x_zero_point->size() == 1,
          "expected one zero point of the input, found {}",
          x_zero_point == nullptr ? 0 : x_zero_point->size());
  const Dims dims = input_dims(node, x.dims());
  if (is_channels_last(node) && x.rank() >= 2)
    x = transposed_batches(context.pool(), x, element_count(std::span(dims).subspan(2)), dims);
  const ConvAttrs attrs = ConvAttrs::of(node, w.dims());
  Tensor sums = Tensor::uninitialized(DType::float64, attrs.output_dims(dims, w.dims()));
  convolve(context.pool(), attrs, x, w, bias, sums);
  return sums;
}

Kernel prepare_conv_integer(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    put_int32(context, 0, convolve_integers(context, node, integer_operands, nullptr));
  };
}

Kernel prepare_qlinear_conv(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    Tensor bias;
    if (const Tensor* given = context.input(8)) {
      require(given->dtype() == DType::int32, "expected a bias of type int32, found {}",
              name(given->dtype()));
      bias = given->cast(DType::float64);
    }
    Tensor sums =
        convolve_integers(context, node, qlinear_operands, bias.defined() ? &bias : nullptr);
    Requantization requantization;
    requantization.type = context.required_input(7).dtype();
    require(is_integer(requantization.type), "expected a zero point of int8 or uint8, found {}",
            name(requantization.type));
    requantization.a_scale = Spread(scalar_scale(context, 1));
    requantization.y_scale = Spread(scalar_scale(context, 6));
    requantization.y_zero_point = Spread(scalar_zero_point(context, 7, requantization.type));
    const std::size_t channel_axis = is_channels_last(node) ? sums.rank() - 1 : 1;
    requantization.b_scale = Spread(context.required_input(4), channel_axis, sums.rank());
    if (is_channels_last(node))
      sums = transposed_batches(context.pool(), sums, sums.dim(1), channels_last(sums.dims()));
    requantization.put(context, sums);
  };
}

void infer_as(InferContext& context, const Operands& operands, DType type) {
  const Node& node = context.node();
  const Shape* given = context.input_shape(operands.x);
  std::optional<Shape> x;
  if (given != nullptr) x = is_channels_last(node) ? channels_first(*given) : *given;
  auto shape = conv_shape(node, x ? &*x : nullptr, context.input_shape(operands.w));
  if (shape && is_channels_last(node)) shape = channels_last(*shape);
  context.set_output(0, type, std::move(shape));
}

void infer_conv_integer(InferContext& context) {
  infer_as(context, integer_operands, DType::int32);
}

void infer_qlinear_conv(InferContext& context) {
  infer_as(context, qlinear_operands, context.input_dtype(7));
}

OperandAxes conv_integer_axes(const Node& node) {
  return conv_axes(node, 0, 1, node.input_count());
}

// The scale and zero point of the weights and the bias count filters.
OperandAxes qlinear_conv_axes(const Node& node) {
  OperandAxes axes = conv_axes(node, 0, 3, 8);
  if (axes.size() < 4 || axes[3].empty()) return axes;
  const std::size_t rank = axes[3].size();
  if (is_channels_last(node)) axes[0] = channels_last(axes[0]);
  const std::int64_t channels = is_channels_last(node) ? static_cast<std::int64_t>(rank) - 1 : 1;
  for (const std::size_t i : {std::size_t{4}, std::size_t{5}}) {
    const Value* value = node.input(i);
    if (value == nullptr || !value->type.shape || value->type.shape->size() != 1) continue;
    if (!same_dim((*value->type.shape)[0], Dim(1)))
      axes[i] = {{.kind = AxisRole::Kind::output, .output_axis = channels}};
  }
  for (auto& operand : axes)
    for (AxisRole& role : operand)
      if (role.kind == AxisRole::Kind::output && role.output_axis == 1) role.output_axis = channels;
  return axes;
}

Cost cost_of(const PrepareContext& context, const Operands& operands) {
  const Dims x = concrete(*context.input_type(operands.x)->shape).value();
  const Dims w = concrete(*context.input_type(operands.w)->shape).value();
  return {.macs = ConvAttrs::of(context.node(), w).macs(input_dims(context.node(), x), w)};
}

}  // namespace

OPERATORS(qlinear_conv) {
  registry.add(OpDef{
      .name = "ConvInteger",
      .since = 10,
      .infer = infer_conv_integer,
      .prepare = prepare_conv_integer,
      .axes = conv_integer_axes,
      .cost = [](const PrepareContext& context) { return cost_of(context, integer_operands); }});
  for (const char* domain : {"", "com.microsoft"})
    registry.add(OpDef{
        .name = "QLinearConv",
        .domain = domain,
        .since = *domain == '\0' ? 10 : 1,
        .infer = infer_qlinear_conv,
        .prepare = prepare_qlinear_conv,
        .axes = qlinear_conv_axes,
        .cost = [](const PrepareContext& context) { return cost_of(context, qlinear_operands); }});
}

}  // namespace onnxpress
