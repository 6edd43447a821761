// MatMul and Gemm on oneDNN.
#include "graph/ops/matmul.h"

#include <algorithm>
#include <utility>

#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gemm.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::memory;

constexpr std::size_t most_axes = 6;

// The operands as oneDNN multiplies them: equal ranks, batch axes broadcast by size 1.
struct Operands {
  Dims a, b, y;
};

Operands operands(Dims a, Dims b) {
  if (a.size() == 1) a.insert(a.begin(), 1);
  if (b.size() == 1) b.push_back(1);
  if (b.size() == 2) {  // one product of all rows
    a = {element_count(std::span(a).first(a.size() - 1)), a.back()};
  } else {
    const std::size_t rank = std::max(a.size(), b.size());
    a.insert(a.begin(), rank - a.size(), 1);
    b.insert(b.begin(), rank - b.size(), 1);
  }
  Dims y = a;
  for (std::size_t axis = 0; axis + 2 < y.size(); ++axis) y[axis] = std::max(a[axis], b[axis]);
  y.back() = b.back();
  return {std::move(a), std::move(b), std::move(y)};
}

bool supports_matmul(const PrepareContext& context) {
  // Input 2, which a fused step may have, is a bias along the columns.
  return is_float_operand(context.input_type(0)) && is_float_operand(context.input_type(1)) &&
         is_float_operand(context.output_type(0)) &&
         dims_of(context.input_type(0)).size() <= most_axes &&
         dims_of(context.input_type(1)).size() <= most_axes;
}

// Weights in the layout that oneDNN likes best when they are constant, else as they lie in memory.
memory::desc weights_layout(const PrepareContext& context, const memory::desc& given,
                            const Dims& dims) {
  return context.constant_input(1) && dims.size() == 2 ? onednn::any_layout(dims) : given;
}

// What all product kernels have in common: post-ops and packed constants.
void finish(const PrepareContext& context, onednn::PrimitiveKernel& kernel) {
  for (const PostOp& op : context.post_ops())
    if (op.kind == PostOp::Kind::add) kernel.set_accumulated(op.operand);
  for (const std::size_t packed : {std::size_t{1}, std::size_t{2}}) context.packed(packed);
}

Kernel prepare_matmul(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const Dims a = dims_of(context.input_type(0)), b = dims_of(context.input_type(1));
    const auto [left, right, result] = operands(a, b);
    const memory::desc given = onednn::plain(right);
    Dims bias_dims(result.size(), 1);
    bias_dims.back() = result.back();
    const memory::desc bias = context.input_type(2) ? onednn::plain(bias_dims) : memory::desc();
    const auto descriptor =
        onednn::matmul(onednn::plain(left), weights_layout(context, given, right), bias,
                       onednn::plain(result), onednn::attributes(context.post_ops()));
    onednn::PrimitiveKernel kernel(dnnl::matmul(descriptor), descriptor.scratchpad_desc(),
                                   DType::float32, MatMulSizes::of(a, b).output);
    kernel.add_input(DNNL_ARG_SRC, 0, onednn::plain(left), descriptor.src_desc(), nullptr);
    kernel.add_input(DNNL_ARG_WEIGHTS, 1, given, descriptor.weights_desc(),
                     context.constant_input(1));
    if (context.input_type(2))
      kernel.add_input(DNNL_ARG_BIAS, 2, bias, bias, context.constant_input(2));
    kernel.set_output(onednn::plain(result), descriptor.dst_desc());
    finish(context, kernel);
    return kernel;
  });
}

// [rows, columns], stored transposed or not.
memory::desc matrix(std::int64_t rows, std::int64_t columns, bool transposed) {
  return onednn::strided({rows, columns}, transposed ? Dims{1, rows} : Dims{columns, 1});
}

Tensor scaled(const Tensor& tensor, float factor) {
  Tensor result = tensor;
  for (float& value : result.mutable_data<float>()) value *= factor;
  return result;
}

// A constant bias that is the same for all rows, as [columns], times beta.
Tensor row_bias(const Tensor& c, float beta, std::int64_t columns) {
  const auto values = c.data<float>();
  Tensor bias = Tensor::uninitialized(DType::float32, {columns});
  std::span<float> out = bias.mutable_data<float>();
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = beta * values[values.size() == 1 ? 0 : i];
  return bias;
}

// oneDNN is fast with biases along columns only.
bool is_row_bias(const Dims& c, std::int64_t columns) {
  const std::int64_t count = element_count(c);
  return count == 1 || (count == columns && !c.empty() && c.back() == columns);
}

bool supports_gemm(const PrepareContext& context) {
  if (!is_float_operand(context.input_type(0)) || !is_float_operand(context.input_type(1)) ||
      !is_float_operand(context.output_type(0)))
    return false;
  const GemmAttrs attrs = GemmAttrs::from(context.node());
  if (attrs.alpha != 1 && !context.constant_input(1)) return false;
  if (!context.input_type(2)) return true;
  if (!is_float_operand(context.input_type(2))) return false;
  const Dims c = dims_of(context.input_type(2));
  const std::int64_t columns = dims_of(context.output_type(0)).at(1);
  if (context.constant_input(2)) return is_row_bias(c, columns);
  return attrs.beta == 1 && is_row_bias(c, columns) && element_count(c) == columns;
}

Kernel prepare_gemm(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const GemmAttrs attrs = GemmAttrs::from(context.node());
    const Dims a = dims_of(context.input_type(0)), y = dims_of(context.output_type(0));
    const std::int64_t rows = y[0], columns = y[1], depth = attrs.transpose_a ? a[0] : a[1];
    const memory::desc left = matrix(rows, depth, attrs.transpose_a);
    const memory::desc right = matrix(depth, columns, attrs.transpose_b);
    const memory::desc bias = context.input_type(2) ? onednn::plain({1, columns}) : memory::desc();
    const auto descriptor =
        onednn::matmul(left, weights_layout(context, right, {depth, columns}), bias,
                       onednn::plain(y), onednn::attributes(context.post_ops()));
    onednn::PrimitiveKernel kernel(dnnl::matmul(descriptor), descriptor.scratchpad_desc(),
                                   DType::float32, y);
    kernel.add_input(DNNL_ARG_SRC, 0, left, descriptor.src_desc(), nullptr);
    if (attrs.alpha != 1)
      kernel.add_constant(DNNL_ARG_WEIGHTS, scaled(*context.constant_input(1), attrs.alpha), right,
                          descriptor.weights_desc());
    else
      kernel.add_input(DNNL_ARG_WEIGHTS, 1, right, descriptor.weights_desc(),
                       context.constant_input(1));
    if (const Tensor* c = context.constant_input(2))
      kernel.add_constant(DNNL_ARG_BIAS, row_bias(*c, attrs.beta, columns), bias, bias);
    else if (context.input_type(2))
      kernel.add_input(DNNL_ARG_BIAS, 2, bias, bias, nullptr);
    kernel.set_output(onednn::plain(y), descriptor.dst_desc());
    finish(context, kernel);
    return kernel;
  });
}

}  // namespace

OPERATORS(onednn_matmul) {
  registry.add(KernelDef{.name = "MatMul",
                         .backend = "onednn",
                         .supports = supports_matmul,
                         .prepare = prepare_matmul,
                         .fuses = onednn::fuses_post_op});
  registry.add(KernelDef{.name = "Gemm",
                         .backend = "onednn",
                         .supports = supports_gemm,
                         .prepare = prepare_gemm,
                         .fuses = onednn::fuses_post_op});
}

}  // namespace onnxpress
