// Gradients of MatMul and Gemm.
#include <algorithm>
#include <span>

#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gemm.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/matmul.h"
#include "graph/ops/matrix_product.h"

namespace onnxpress {
namespace {

// dA = dY B', dB = A' dY for each product of the stack; a matrix that several products share gets
// the sum of theirs.
template <class T>
void differentiate_products(BackwardContext& context) {
  const MatMulSizes size = MatMulSizes::of(context.input_dims(0), context.input_dims(1));
  const T* const dy = context.required_gradient(0).data<T>().data();
  const auto count = static_cast<std::int64_t>(size.a_offsets.size());
  const std::int64_t area = size.rows * size.columns;
  if (context.wants_gradient(0)) {
    const T* const b = context.required_input(1).data<T>().data();
    const auto da = context.gradient(0).mutable_data<T>();
    std::ranges::fill(da, T(0));
    for (std::int64_t i = 0; i < count; ++i)
      add_product<T>(context.pool(), size.rows, size.depth, size.columns,
                     {dy + i * area, size.columns},
                     {b + size.b_offsets[static_cast<std::size_t>(i)], size.columns, true},
                     {da.data() + size.a_offsets[static_cast<std::size_t>(i)], size.depth});
  }
  if (context.wants_gradient(1)) {
    const T* const a = context.required_input(0).data<T>().data();
    const auto db = context.gradient(1).mutable_data<T>();
    std::ranges::fill(db, T(0));
    for (std::int64_t i = 0; i < count; ++i)
      add_product<T>(context.pool(), size.depth, size.columns, size.rows,
                     {a + size.a_offsets[static_cast<std::size_t>(i)], size.depth, true},
                     {dy + i * area, size.columns},
                     {db.data() + size.b_offsets[static_cast<std::size_t>(i)], size.columns});
  }
}

BackwardKernel prepare_matmul(const PrepareContext&) {
  return [](BackwardContext& context) {
    dispatch_floats(context.required_gradient(0).dtype(), [&]<class T>(std::type_identity<T>) {
      differentiate_products<T>(context);
    });
  };
}

template <class T>
void scale(std::span<T> values, float factor) {
  if (factor != 1)
    for (T& value : values) value *= static_cast<T>(factor);
}

template <class T>
void differentiate_gemm(BackwardContext& context, const GemmAttrs& attrs, const Node& node) {
  const Dims &a_dims = context.input_dims(0), &b_dims = context.input_dims(1);
  const GemmSizes size = GemmSizes::of(attrs, a_dims, b_dims);
  const Tensor& gradient = context.required_gradient(0);
  const T* const dy = gradient.data<T>().data();
  if (context.wants_gradient(0)) {
    const T* const b = context.required_input(1).data<T>().data();
    const auto da = context.gradient(0).mutable_data<T>();
    std::ranges::fill(da, T(0));
    if (attrs.transpose_a)  // A is [depth, rows]: dA = B dY'
      add_product<T>(context.pool(), size.depth, size.rows, size.columns,
                     {b, b_dims[1], attrs.transpose_b}, {dy, size.columns, true},
                     {da.data(), size.rows});
    else
      add_product<T>(context.pool(), size.rows, size.depth, size.columns, {dy, size.columns},
                     {b, b_dims[1], !attrs.transpose_b}, {da.data(), size.depth});
    scale(da, attrs.alpha);
  }
  if (context.wants_gradient(1)) {
    const T* const a = context.required_input(0).data<T>().data();
    const auto db = context.gradient(1).mutable_data<T>();
    std::ranges::fill(db, T(0));
    if (attrs.transpose_b)  // B is [columns, depth]: dB = dY' A
      add_product<T>(context.pool(), size.columns, size.depth, size.rows, {dy, size.columns, true},
                     {a, a_dims[1], attrs.transpose_a}, {db.data(), size.depth});
    else
      add_product<T>(context.pool(), size.depth, size.columns, size.rows,
                     {a, a_dims[1], !attrs.transpose_a}, {dy, size.columns},
                     {db.data(), size.columns});
    scale(db, attrs.alpha);
  }
  if (context.wants_gradient(2)) put_gemm_bias(context, attrs, node);
}

BackwardKernel prepare_gemm(const PrepareContext& plan) {
  return [attrs = GemmAttrs::from(plan.node()), &node = plan.node()](BackwardContext& context) {
    dispatch_floats(context.required_gradient(0).dtype(), [&]<class T>(std::type_identity<T>) {
      differentiate_gemm<T>(context, attrs, node);
    });
  };
}

}  // namespace

void put_gemm_bias(BackwardContext& context, const GemmAttrs& attrs, const Node& node) {
  const Tensor& gradient = context.required_gradient(0);
  const Dims dims = legacy_broadcast_dims(node, 2, context.input_dims(2));
  Tensor sum = sum_to(context.pool(), gradient, dims);
  if (attrs.beta != 1) {
    sum = copy_as(sum, sum.dtype());
    dispatch_floats(sum.dtype(), [&]<class T>(std::type_identity<T>) {
      scale(sum.mutable_data<T>(), attrs.beta);
    });
  }
  put_sum(context, 2, sum, dims);
}

OPERATORS(product_gradient) {
  registry.add(GradientDef{.name = "MatMul",
                           .prepare = prepare_matmul,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
  registry.add(GradientDef{.name = "Gemm",
                           .prepare = prepare_gemm,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
}

}  // namespace onnxpress
