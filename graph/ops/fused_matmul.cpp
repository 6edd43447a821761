// FusedMatMul and its old name TransposeMatMul of com.microsoft: alpha * A' * B'.
#include "graph/ops/fused_matmul.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matmul.h"
#include "graph/ops/matrix_product.h"

namespace onnxpress {
namespace {

using Reading = FusedMatMulAttrs::Reading;

// Axes of an operand in the order in which it is read.
template <class Axes>
Axes read(const Reading& reading, Axes dims) {
  if (dims.size() < 2) return dims;
  if (reading.batch_transposed) std::rotate(dims.begin(), dims.begin() + 1, dims.end() - 1);
  if (reading.transposed) std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
  return dims;
}

// Matrices of an operand: strides of the batch axes and of the stored rows.
struct Stack {
  Dims batch;
  std::vector<std::int64_t> strides;
  std::int64_t row_stride = 1;
  bool transposed = false;

  Stack(const Dims& dims, const Reading& reading) {
    if (dims.size() < 2) return;
    std::vector<std::int64_t> all = row_strides(dims);
    const Reading moved{.batch_transposed = reading.batch_transposed};
    const Dims sizes = read(moved, dims);
    all = read(moved, all);
    batch.assign(sizes.begin(), sizes.end() - 2);
    strides.assign(all.begin(), all.end() - 2);
    row_stride = all[all.size() - 2];
    transposed = reading.transposed;
  }

  // Of the matrix for element `index` of `target`, to which the batch broadcasts.
  std::int64_t offset(std::int64_t index, const Dims& target) const {
    std::int64_t found = 0;
    for (std::size_t axis = target.size(); axis-- > 0; index /= target[axis]) {
      const std::size_t missing = target.size() - batch.size();
      if (axis >= missing && batch[axis - missing] != 1)
        found += index % target[axis] * strides[axis - missing];
    }
    return found;
  }
};

Kernel prepare_fused_matmul(const PrepareContext& prepare) {
  return [attrs = FusedMatMulAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& a = inner.required_input(0);
      const Tensor& b = inner.required_input(1);
      const MatMulSizes size = MatMulSizes::of(read(attrs.a, a.dims()), read(attrs.b, b.dims()));
      const Stack left(a.dims(), attrs.a), right(b.dims(), attrs.b);
      const Dims batch = broadcast(left.batch, right.batch);
      // The stored rows of a vector: A is one row, B one column.
      const std::int64_t a_stride = a.rank() < 2 ? size.depth : left.row_stride;
      Tensor& y = inner.output(0, a.dtype(), size.output);
      dispatch_floats(a.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const from_a = a.data<T>().data();
        const T* const from_b = b.data<T>().data();
        T* const out = y.mutable_data<T>().data();
        const std::int64_t area = size.rows * size.columns;
        const auto one = [&](std::int64_t i, auto&&... where) {
          T* const to = out + i * area;
          std::fill_n(to, area, T(0));
          add_product<T>(where..., size.rows, size.columns, size.depth,
                         {from_a + left.offset(i, batch), a_stride, left.transposed},
                         {from_b + right.offset(i, batch), right.row_stride, right.transposed},
                         {to, size.columns});
          if (attrs.alpha != 1)
            for (std::int64_t k = 0; k < area; ++k) to[k] *= static_cast<T>(attrs.alpha);
        };
        const std::int64_t count = element_count(batch);
        if (count == 1)
          one(0, inner.pool());
        else
          inner.pool().parallel_for(count, 1, [&](std::int64_t i, std::int64_t) { one(i); });
      });
    });
  };
}

void infer_fused_matmul(InferContext& context) {
  const FusedMatMulAttrs attrs = FusedMatMulAttrs::from(context.node());
  const Shape* a = context.input_shape(0);
  const Shape* b = context.input_shape(1);
  std::optional<Shape> shape;
  if (a != nullptr && b != nullptr) shape = matmul_shape(read(attrs.a, *a), read(attrs.b, *b));
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

Cost fused_matmul_cost(const PrepareContext& context) {
  const FusedMatMulAttrs attrs = FusedMatMulAttrs::from(context.node());
  const auto dims = [&](std::size_t i) { return concrete(*context.input_type(i)->shape).value(); };
  const MatMulSizes size = MatMulSizes::of(read(attrs.a, dims(0)), read(attrs.b, dims(1)));
  return {.macs = element_count(size.output) * size.depth};
}

}  // namespace

FusedMatMulAttrs FusedMatMulAttrs::from(const Node& node) {
  return {.alpha = get_float(node, "alpha", 1),
          .a = {get_bool(node, "transA", false), get_bool(node, "transBatchA", false)},
          .b = {get_bool(node, "transB", false), get_bool(node, "transBatchB", false)}};
}

Attributes FusedMatMulAttrs::to_attributes() const {
  Attributes attributes;
  if (alpha != 1) attributes["alpha"] = alpha;
  const std::pair<const char*, bool> flags[] = {{"transA", a.transposed},
                                                {"transBatchA", a.batch_transposed},
                                                {"transB", b.transposed},
                                                {"transBatchB", b.batch_transposed}};
  for (const auto& [name, value] : flags)
    if (value) attributes[name] = 1;
  return attributes;
}

OPERATORS(fused_matmul) {
  for (const char* name : {"FusedMatMul", "TransposeMatMul"})
    registry.add(OpDef{.name = name,
                       .domain = "com.microsoft",
                       .infer = infer_fused_matmul,
                       .prepare = prepare_fused_matmul,
                       .cost = fused_matmul_cost});
}

}  // namespace onnxpress
