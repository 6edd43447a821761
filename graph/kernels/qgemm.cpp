// QGemm and QLinearMatMul on oneDNN: 8-bit activations, int8 weights, integer sums.
#include "graph/kernels/quantized_primitive.h"
#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_code_operand;
using onednn::memory;

// Inputs: A, its scale and zero point, B, ..., then C (of QGemm), y's.
constexpr std::size_t a_scale = 1, a_zero = 2, b_input = 3, b_scale = 4, b_zero = 5, none = 99;
struct Operands {
  std::size_t c_input, y_scale, y_zero;
};
constexpr Operands gemm_operands{6, 7, 8}, matmul_operands{none, 6, 7};

// A as a matrix: its rows are those of all its matrices.
Dims as_matrix(const Dims& dims) {
  return {element_count(std::span(dims).first(dims.size() - 1)), dims.back()};
}

bool is_scalar_or_absent(const PrepareContext& context, std::size_t index) {
  if (!context.input_type(index)) return true;
  const Tensor* tensor = context.constant_input(index);
  return tensor && tensor->size() == 1;
}

bool supports(const PrepareContext& context, const Operands& operands) {
  const auto [c_input, y_scale, y_zero] = operands;
  if (!onednn::has_exact_sums()) return false;
  const Type* y = context.output_type(0);
  const bool is_float = !context.input_type(y_scale);
  if (!is_code_operand(context.input_type(0)) ||
      !(is_float ? onednn::is_float_operand(y) : is_code_operand(y)) || dims_of(y).size() < 2 ||
      dims_of(context.input_type(0)).size() < 2)
    return false;
  const Tensor* b = context.constant_input(b_input);
  if (!b || b->dtype() != DType::int8 || b->rank() != 2 || b->size() == 0) return false;
  const std::int64_t columns = dims_of(y).back();
  const Tensor* scale = context.constant_input(b_scale);
  if (!context.constant_input(a_scale) || !scale ||
      (scale->size() != 1 && scale->size() != columns) ||
      !onednn::is_all_zero(context.constant_input(b_zero)) ||
      (context.input_type(b_zero) && !context.constant_input(b_zero)))
    return false;
  for (const std::size_t index : {a_scale, a_zero, y_scale, y_zero})
    if (!is_scalar_or_absent(context, index)) return false;
  if (!context.input_type(c_input)) return true;
  const Tensor* c = context.constant_input(c_input);
  return c && c->dtype() == DType::int32 && c->size() == columns && c->dims().back() == columns;
}

Kernel prepare(const PrepareContext& context, const Operands& operands, bool is_transposed) {
  const auto [c_input, y_scale, y_zero] = operands;
  return onednn::guarded([&]() -> Kernel {
    const Tensor& b = *context.constant_input(b_input);
    const Dims result = dims_of(context.output_type(0));
    const Dims a = as_matrix(dims_of(context.input_type(0))), y = as_matrix(result);
    const std::int64_t depth = a[1], columns = y[1];
    const Tensor* scale = context.constant_input(y_scale);
    auto requantization = onednn::Requantization::of(*context.constant_input(a_scale),
                                                     *context.constant_input(b_scale),
                                                     scale ? *scale : Tensor::scalar(1.0f));
    requantization.source_zero_point = onednn::zero_point(context.constant_input(a_zero));
    requantization.zero_point = onednn::zero_point(context.constant_input(y_zero));
    const DType y_type = context.output_type(0)->elem;
    const auto a_data = onednn::data_type(context.input_type(0)->elem);
    const memory::desc left = onednn::plain(a, a_data);
    const memory::desc right = onednn::strided(
        {depth, columns}, is_transposed ? Dims{1, depth} : Dims{columns, 1}, onednn::DataType::s8);
    const Tensor* c = context.constant_input(c_input);
    const Dims bias_dims{1, columns};
    const auto descriptor = onednn::matmul(
        left, onednn::any_layout({depth, columns}, onednn::DataType::s8),
        c ? onednn::plain(bias_dims, onednn::quantized_bias_type()) : memory::desc(),
        onednn::plain(y, onednn::data_type(y_type)),
        onednn::attributes(requantization, context.post_ops(), {.weights = 2, .destination = 2}));
    onednn::PrimitiveKernel kernel(dnnl::matmul(descriptor), descriptor.scratchpad_desc(), y_type,
                                   result);
    kernel.add_input(DNNL_ARG_SRC, 0, left, descriptor.src_desc(), nullptr);
    kernel.add_constant(DNNL_ARG_WEIGHTS, b, right, descriptor.weights_desc());
    if (c) onednn::add_bias(kernel, requantization, *c, bias_dims);
    onednn::add_arguments(kernel, requantization);
    kernel.set_output(onednn::plain(y, onednn::data_type(y_type)), descriptor.dst_desc());
    for (std::size_t index = 1; index <= y_zero; ++index) context.packed(index);
    return kernel;
  });
}

bool supports_gemm(const PrepareContext& context) {
  const Node& node = context.node();
  return get_float(node, "alpha", 1) == 1 && !get_bool(node, "transA", false) && supports(context, gemm_operands);
}
Kernel prepare_gemm(const PrepareContext& context) {
  return prepare(context, gemm_operands, get_bool(context.node(), "transB", false));
}

bool supports_matmul(const PrepareContext& context) { return supports(context, matmul_operands); }
Kernel prepare_matmul(const PrepareContext& context) { return prepare(context, matmul_operands, false); }

}  // namespace

OPERATORS(onednn_qgemm) {
  registry.add(KernelDef{.name = "QGemm",
                         .domain = "com.microsoft",
                         .backend = "onednn",
                         .supports = supports_gemm,
                         .prepare = prepare_gemm});
  registry.add(KernelDef{.name = "QLinearMatMul",
                         .backend = "onednn",
                         .supports = supports_matmul,
                         .prepare = prepare_matmul});
}

}  // namespace onnxpress
