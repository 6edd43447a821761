// MatMulInteger, QLinearMatMul, and com.microsoft's MatMulIntegerToFloat and DynamicQuantizeMatMul.
#include "graph/ops/matmul.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Which input is what; `none` is no input of any node.
constexpr std::size_t none = 99;
struct Operands {
  std::size_t a, b, a_zero_point, b_zero_point, a_scale, b_scale;
};
constexpr Operands integer_operands{0, 1, 2, 3, none, none};
constexpr Operands qlinear_operands{0, 3, 2, 5, 1, 4};
constexpr Operands to_float_operands{0, 1, 4, 5, 2, 3};
constexpr Operands dynamic_operands{0, 1, none, 3, none, 2};

// Scales or zero points of the rows of A (1-D: one a row) as they broadcast to a tensor of `rank`.
Spread by_row(const Tensor& given, std::size_t rank) {
  return {given, rank >= 2 ? rank - 2 : 0, rank};
}

Spread by_column(const Tensor& given, std::size_t rank) {
  return {given, rank >= 1 ? rank - 1 : 0, rank};
}

// Of operand `index`, whose zero point is input `zero_index`.
Spread zero_points(KernelContext& context, std::size_t index, std::size_t zero_index,
                   Spread (*spread)(const Tensor&, std::size_t)) {
  const Tensor* zero = context.input(zero_index);
  if (zero == nullptr) return {};
  const Tensor& x = context.required_input(index);
  require(zero->dtype() == x.dtype(), "input {}: expected zero points of type {}, found {}",
          zero_index, name(x.dtype()), name(zero->dtype()));
  return spread(*zero, x.rank());
}

// The sums of products of what exceeds the zero points; `a` instead of the context's, when given.
Tensor multiply(KernelContext& context, const Operands& operands, const Tensor& a,
                const Spread& a_zero_points) {
  const Tensor& b = context.required_input(operands.b);
  require(is_integer(a.dtype()) == is_integer(b.dtype()),
          "expected both operands in integers or both in float8, found {} and {}", name(a.dtype()),
          name(b.dtype()));
  const MatMulSizes size = MatMulSizes::of(a.dims(), b.dims());
  const Tensor left = centred(context.pool(), a, a_zero_points);
  const Tensor right = centred(context.pool(), b,
                               zero_points(context, operands.b, operands.b_zero_point, by_column));
  Tensor sums(DType::float64, size.output);
  add_products<double>(context.pool(), size, left.data<double>().data(),
                       right.data<double>().data(), sums.mutable_data<double>().data());
  return sums;
}

Tensor multiply(KernelContext& context, const Operands& operands) {
  const Tensor& a = context.required_input(operands.a);
  return multiply(context, operands, a,
                  zero_points(context, operands.a, operands.a_zero_point, by_row));
}

Kernel prepare_matmul_integer(const PrepareContext&) {
  return [](KernelContext& context) {
    require(is_integer(context.required_input(0).dtype()), "expected int8 or uint8, found {}",
            name(context.required_input(0).dtype()));
    put_int32(context, 0, multiply(context, integer_operands));
  };
}

// Scales of rows in a result to which a vector B left no columns.
Spread row_scale(const Tensor& scale, const Tensor& b, std::size_t rank) {
  return b.rank() == 1 ? by_column(scale, rank) : by_row(scale, rank);
}

Kernel prepare_qlinear_matmul(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor sums = multiply(context, qlinear_operands);
    const Tensor& b = context.required_input(qlinear_operands.b);
    const Tensor& zero_point = context.required_input(7);
    const std::size_t rank = sums.rank();
    Requantization requantization;
    requantization.integer_sums = is_integer(b.dtype());
    requantization.type = zero_point.dtype();
    requantization.a_scale = row_scale(context.required_input(1), b, rank);
    requantization.b_scale = by_column(context.required_input(4), rank);
    requantization.y_scale = row_scale(context.required_input(6), b, rank);
    requantization.y_zero_point = row_scale(zero_point, b, rank);
    requantization.put(context, sums);
  };
}

// y = float32(sum) * (a_scale * b_scale) + bias.
void put_floats(KernelContext& context, const Tensor& sums, const Spread& a_scale,
                const Spread& b_scale, const Tensor* bias, DType type) {
  Dequantization dequantization;
  dequantization.a_scale = a_scale;
  dequantization.b_scale = b_scale;
  dequantization.type = type;
  if (bias != nullptr) {
    require(bias->rank() == 1 && sums.rank() >= 1 && bias->dim(0) == sums.dims().back(),
            "expected one bias per column of {}, found {}", to_string(sums.dims()),
            to_string(bias->dims()));
    dequantization.bias = by_column(*bias, sums.rank());
  }
  dequantization.put(context, sums);
}

Kernel prepare_matmul_integer_to_float(const PrepareContext&) {
  return [](KernelContext& context) {
    const Operands& operands = to_float_operands;
    const Tensor sums = multiply(context, operands);
    const Tensor& b = context.required_input(operands.b);
    put_floats(context, sums, row_scale(context.required_input(operands.a_scale), b, sums.rank()),
               by_column(context.required_input(operands.b_scale), sums.rank()), context.input(6),
               context.required_input(operands.a_scale).dtype());
  };
}

Kernel prepare_dynamic_quantize_matmul(const PrepareContext&) {
  return [](KernelContext& context) {
    const Operands& operands = dynamic_operands;
    const Tensor& a = context.required_input(operands.a);
    const DynamicRange range = DynamicRange::of(a.data<float>());
    const Tensor sums =
        multiply(context, operands, quantized(context.pool(), a, range), Spread(range.zero_point));
    put_floats(context, sums, Spread(range.scale),
               by_column(context.required_input(operands.b_scale), sums.rank()), context.input(4),
               DType::float32);
  };
}

void infer_as(InferContext& context, const Operands& operands, DType type) {
  const Shape* a = context.input_shape(operands.a);
  const Shape* b = context.input_shape(operands.b);
  std::optional<Shape> shape;
  if (a != nullptr && b != nullptr) shape = matmul_shape(*a, *b);
  context.set_output(0, type, std::move(shape));
}

// Scales and zero points of B that are one per column have the output's last axis.
OperandAxes axes_of(const Node& node, const Operands& operands, std::size_t bias) {
  OperandAxes axes = matmul_axes(node, operands.a, operands.b);
  if (operands.b >= axes.size() || axes[operands.b].size() < 2) return axes;
  const AxisRole column = axes[operands.b].back();
  for (const std::size_t i : {operands.b_scale, operands.b_zero_point, bias}) {
    const Value* value = node.input(i);
    if (value == nullptr || !value->type.shape || value->type.shape->size() != 1) continue;
    if (!same_dim((*value->type.shape)[0], Dim(1))) axes[i] = {column};
  }
  return axes;
}

Cost cost_of(const PrepareContext& context, const Operands& operands) {
  return {.macs = MatMulSizes::of(concrete(*context.input_type(operands.a)->shape).value(),
                                  concrete(*context.input_type(operands.b)->shape).value())
                      .macs()};
}

}  // namespace

OPERATORS(qlinear_matmul) {
  registry.add(OpDef{
      .name = "MatMulInteger",
      .since = 10,
      .infer = [](InferContext& context) { infer_as(context, integer_operands, DType::int32); },
      .prepare = prepare_matmul_integer,
      .axes = [](const Node& node) { return axes_of(node, integer_operands, none); },
      .cost = [](const PrepareContext& context) { return cost_of(context, integer_operands); }});
  registry.add(OpDef{
      .name = "QLinearMatMul",
      .since = 10,
      .infer =
          [](InferContext& context) {
            infer_as(context, qlinear_operands, context.input_dtype(7));
          },
      .prepare = prepare_qlinear_matmul,
      .axes = [](const Node& node) { return axes_of(node, qlinear_operands, none); },
      .cost = [](const PrepareContext& context) { return cost_of(context, qlinear_operands); }});
  registry.add(OpDef{
      .name = "MatMulIntegerToFloat",
      .domain = "com.microsoft",
      .infer =
          [](InferContext& context) {
            infer_as(context, to_float_operands, context.input_dtype(to_float_operands.a_scale));
          },
      .prepare = prepare_matmul_integer_to_float,
      .axes = [](const Node& node) { return axes_of(node, to_float_operands, 6); },
      .cost = [](const PrepareContext& context) { return cost_of(context, to_float_operands); }});
  registry.add(OpDef{
      .name = "DynamicQuantizeMatMul",
      .domain = "com.microsoft",
      .infer = [](InferContext& context) { infer_as(context, dynamic_operands, DType::float32); },
      .prepare = prepare_dynamic_quantize_matmul,
      .axes = [](const Node& node) { return axes_of(node, dynamic_operands, 4); },
      .cost = [](const PrepareContext& context) { return cost_of(context, dynamic_operands); }});
}

}  // namespace onnxpress
