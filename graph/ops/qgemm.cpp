// QGemm: Gemm on 8-bit codes.
#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/gemm.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Inputs: A, scale, zero point, B, scale, zero point, C (int32), y's scale, zero point.
constexpr std::size_t a_input = 0;
constexpr std::size_t b_input = 3;
constexpr std::size_t c_input = 6;
constexpr std::size_t y_scale_input = 7;

// C seen as the result, as float64.
Tensor initial_sums(KernelContext& context, const Dims& dims) {
  Tensor sums(DType::float64, dims);
  const Tensor* c = context.input(c_input);
  if (c == nullptr) return sums;
  require(c->dtype() == DType::int32, "expected C in int32, found {}", name(c->dtype()));
  require(broadcast(c->dims(), dims) == dims, "C {} does not broadcast to {}", to_string(c->dims()),
          to_string(dims));
  const Dims operands[] = {c->dims()};
  const BroadcastPlan plan(dims, operands);
  const std::span<const std::int32_t> in = c->data<std::int32_t>();
  const std::span<double> out = sums.mutable_data<double>();
  plan.run(context.pool(),
           [&](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
             for (std::int64_t i = 0; i < count; ++i)
               out[static_cast<std::size_t>(start + i)] =
                   in[static_cast<std::size_t>(offsets[0] + i * plan.inner_stride(0))];
           });
  return sums;
}

Kernel prepare(const PrepareContext& prepare) {
  return [attrs = GemmAttrs::from(prepare.node())](KernelContext& context) {
    const Tensor& a = context.required_input(a_input);
    const Tensor& b = context.required_input(b_input);
    const GemmSizes size = GemmSizes::of(attrs, a.dims(), b.dims());
    codes_of(a);  // checks the types
    codes_of(b);
    const auto from_a = quantization_at(context, a_input + 1, a.dtype());
    const Tensor& b_scale = context.required_input(b_input + 1);
    const Tensor* b_zero = context.input(b_input + 2);
    require(b_zero == nullptr || b_zero->dtype() == b.dtype(),
            "expected zero points of B in {}, found {}", name(b.dtype()),
            b_zero == nullptr ? "none" : name(b_zero->dtype()));
    const Tensor left = centred(context.pool(), a, Spread(from_a.zero_point));
    const Tensor right =
        centred(context.pool(), b,
                b_zero != nullptr ? Spread(*b_zero, attrs.transpose_b ? 0 : 1, 2) : Spread());
    Tensor sums = initial_sums(context, {size.rows, size.columns});
    add_product<double>(context.pool(), size.rows, size.columns, size.depth,
                        {left.data<double>().data(), a.dim(1), attrs.transpose_a},
                        {right.data<double>().data(), b.dim(1), attrs.transpose_b},
                        {sums.mutable_data<double>().data(), size.columns});
    const Spread a_spread(attrs.alpha * from_a.scale);
    const Spread b_spread(b_scale, 1, 2);
    if (context.input(y_scale_input) == nullptr) {
      Dequantization dequantization;
      dequantization.a_scale = a_spread;
      dequantization.b_scale = b_spread;
      return dequantization.put(context, sums);
    }
    Requantization requantization;
    requantization.a_scale = a_spread;
    requantization.b_scale = b_spread;
    requantization.type = context.required_input(y_scale_input + 1).dtype();
    const auto to = quantization_at(context, y_scale_input, requantization.type);
    requantization.y_scale = Spread(to.scale);
    requantization.y_zero_point = Spread(to.zero_point);
    requantization.put(context, sums);
  };
}

void infer(InferContext& context) {
  const DType type =
      context.has_input(y_scale_input) ? context.input_dtype(y_scale_input + 1) : DType::float32;
  context.set_output(0, type,
                     gemm_shape(GemmAttrs::from(context.node()), context.input_shape(a_input),
                                context.input_shape(b_input)));
}

OperandAxes axes(const Node& node) {
  OperandAxes roles = gemm_axes(node, a_input, b_input, c_input);
  for (const std::size_t i : {b_input + 1, b_input + 2}) {
    const Value* value = node.input(i);
    if (value == nullptr || !value->type.shape || value->type.shape->size() != 1) continue;
    if (!same_dim((*value->type.shape)[0], Dim(1)))
      roles[i] = {{.kind = AxisRole::Kind::output, .output_axis = 1}};
  }
  return roles;
}

Cost cost(const PrepareContext& context) {
  return {.macs = GemmSizes::of(GemmAttrs::from(context.node()),
                                concrete(*context.input_type(a_input)->shape).value(),
                                concrete(*context.input_type(b_input)->shape).value())
                      .macs()};
}

}  // namespace

OPERATORS(qgemm) {
  registry.add(OpDef{.name = "QGemm",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare,
                     .axes = axes,
                     .cost = cost});
}

}  // namespace onnxpress
