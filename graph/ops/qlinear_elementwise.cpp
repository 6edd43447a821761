// Elementwise operators on 8-bit codes: QLinearAdd, QLinearMul, QLinearWhere, and those of one
// operand, QLinearLeakyRelu and QLinearSigmoid, which look a code up in a table.
#include <array>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/quantized.h"

namespace onnxpress {
namespace {

enum class Kind { add, multiply };

// a, scale, zero point, b, scale, zero point, c's scale, zero point. As ONNX Runtime computes it,
// with the zero points of a sum folded into one float32 number.
template <Kind kind>
Kernel prepare_binary(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& a = context.required_input(0);
    const Tensor& b = context.required_input(3);
    require(a.dtype() == b.dtype(), "expected operands of one type, found {} and {}",
            name(a.dtype()), name(b.dtype()));
    const auto from_a = quantization_at(context, 1, a.dtype());
    const auto from_b = quantization_at(context, 4, a.dtype());
    const auto to = quantization_at(context, 6, a.dtype());
    const Dims dims = broadcast(a.dims(), b.dims());
    const Dims operands[] = {a.dims(), b.dims()};
    const BroadcastPlan plan(dims, operands);
    const std::span<const std::uint8_t> in_a = codes_of(a);
    const std::span<const std::uint8_t> in_b = codes_of(b);
    const std::span<std::uint8_t> out = mutable_codes_of(context.output(0, a.dtype(), dims));
    const bool is_signed = is_signed_integer(a.dtype());
    const auto number = [is_signed](std::uint8_t code) {
      return static_cast<float>(is_signed ? static_cast<std::int8_t>(code) : int{code});
    };
    const float ratio_a = from_a.scale / to.scale;
    const float ratio_b = from_b.scale / to.scale;
    const float fixed = to.zero_point - (ratio_a * from_a.zero_point + ratio_b * from_b.zero_point);
    const float product_ratio = from_a.scale * from_b.scale / to.scale;
    const IntegerGrid grid(a.dtype());
    plan.run(context.pool(), [&](std::int64_t start, const std::int64_t* offsets,
                                 std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i) {
        const float x =
            number(in_a[static_cast<std::size_t>(offsets[0] + i * plan.inner_stride(0))]);
        const float y =
            number(in_b[static_cast<std::size_t>(offsets[1] + i * plan.inner_stride(1))]);
        const float value =
            kind == Kind::add
                ? fixed + ratio_a * x + ratio_b * y
                : (x - from_a.zero_point) * (y - from_b.zero_point) * product_ratio + to.zero_point;
        out[static_cast<std::size_t>(start + i)] = byte_of(grid.code(value));
      }
    });
  };
}

// The shape of inputs `operands` broadcast, of the element type of the first of a list.
template <std::size_t... operands>
void infer_broadcast_of(InferContext& context, std::size_t typed) {
  std::optional<Shape> shape = Shape{};
  for (const std::size_t i : {operands...}) {
    const Shape* x = context.input_shape(i);
    if (x == nullptr)
      shape.reset();
    else if (shape)
      shape = broadcast(*shape, *x);
  }
  context.set_output(0, context.input_dtype(typed), std::move(shape));
}

void infer_binary(InferContext& context) { infer_broadcast_of<0, 3>(context, 0); }
void infer_where(InferContext& context) { infer_broadcast_of<0, 1, 4>(context, 1); }

// condition, x, scale, zero point, y, scale, zero point, z's scale, zero point.
Kernel prepare_where(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& condition = context.required_input(0);
    const Tensor& x = context.required_input(1);
    const Tensor& y = context.required_input(4);
    require(x.dtype() == y.dtype(), "expected operands of one type, found {} and {}",
            name(x.dtype()), name(y.dtype()));
    const auto to = quantization_at(context, 7, x.dtype());
    const auto same = [](float value) { return value; };
    const std::array<CodeTable, 2> tables{
        CodeTable(x.dtype(), quantization_at(context, 2, x.dtype()), to, same),
        CodeTable(x.dtype(), quantization_at(context, 5, x.dtype()), to, same)};
    const Dims dims = broadcast(condition.dims(), broadcast(x.dims(), y.dims()));
    const Dims operands[] = {condition.dims(), x.dims(), y.dims()};
    const BroadcastPlan plan(dims, operands);
    const std::span<const bool> chosen = condition.data<bool>();
    const std::span<const std::uint8_t> values[] = {codes_of(x), codes_of(y)};
    const std::span<std::uint8_t> out = mutable_codes_of(context.output(0, x.dtype(), dims));
    plan.run(
        context.pool(), [&](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
          for (std::int64_t i = 0; i < count; ++i) {
            const auto at = [&](std::size_t operand) {
              return static_cast<std::size_t>(offsets[operand] + i * plan.inner_stride(operand));
            };
            const std::size_t side = chosen[at(0)] ? 0 : 1;
            out[static_cast<std::size_t>(start + i)] = tables[side][values[side][at(side + 1)]];
          }
        });
  };
}

// x, scale, zero point, y's scale, zero point.
Kernel prepare_table(std::function<float(float)> function) {
  return [function = std::move(function)](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    CodeTable(x.dtype(), quantization_at(context, 1, x.dtype()),
              quantization_at(context, 3, x.dtype()), function)
        .put(context, x);
  };
}

Kernel prepare_leaky_relu(const PrepareContext& prepare) {
  return prepare_table([alpha = get_float(prepare.node(), "alpha", 0.01f)](float value) {
    return value >= 0 ? value : value * alpha;
  });
}

Kernel prepare_sigmoid(const PrepareContext&) {
  return prepare_table([](float value) { return 1 / (1 + std::exp(-value)); });
}

// Of the first operand alone: the rest are scalars.
OperandAxes first_axes(const Node& node) {
  OperandAxes axes = broadcast_axes(node);
  for (std::size_t i = 1; i < axes.size(); ++i) axes[i].clear();
  return axes;
}

}  // namespace

OPERATORS(qlinear_elementwise) {
  const auto add = [&](const char* op, auto infer, auto prepare, auto axes) {
    registry.add(OpDef{
        .name = op, .domain = "com.microsoft", .infer = infer, .prepare = prepare, .axes = axes});
  };
  add("QLinearAdd", infer_binary, prepare_binary<Kind::add>, broadcast_axes);
  add("QLinearMul", infer_binary, prepare_binary<Kind::multiply>, broadcast_axes);
  add("QLinearWhere", infer_where, prepare_where, broadcast_axes);
  add("QLinearLeakyRelu", infer_same_as_first, prepare_leaky_relu, first_axes);
  add("QLinearSigmoid", infer_same_as_first, prepare_sigmoid, first_axes);
}

}  // namespace onnxpress
