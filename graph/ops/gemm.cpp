#include "graph/ops/gemm.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"

namespace onnxpress {
namespace {

template <class T>
void fill_bias(ThreadPool& pool, const Tensor* c, const Dims& c_dims, float beta,
               const GemmSizes& size, T* y) {
  if (c == nullptr || beta == 0) return std::fill(y, y + size.rows * size.columns, T(0));
  const Dims target{size.rows, size.columns};
  require(broadcast(c_dims, target) == target, "bias {} does not broadcast to {}",
          to_string(c_dims), to_string(target));
  const Dims operands[] = {c_dims};
  const BroadcastPlan plan(target, operands);
  const T* bias = c->data<T>().data();
  const std::int64_t step = plan.inner_stride(0);
  plan.run(pool, [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const T value = bias[offsets[0] + i * step];
      y[start + i] = beta == 1 ? value : static_cast<T>(static_cast<T>(beta) * value);
    }
  });
}

Kernel prepare_gemm(const PrepareContext& prepare) {
  return [attrs = GemmAttrs::from(prepare.node()), &node = prepare.node()](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& a = inner.required_input(0);
      const Tensor& b = inner.required_input(1);
      const Tensor* c = inner.input(2);
      const GemmSizes size = GemmSizes::of(attrs, a.dims(), b.dims());
      Tensor& y = inner.output(0, a.dtype(), {size.rows, size.columns});
      dispatch_numbers(a.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        T* out = y.mutable_data<T>().data();
        const Dims c_dims = c != nullptr ? legacy_broadcast_dims(node, 2, c->dims()) : Dims{};
        fill_bias<T>(inner.pool(), c, c_dims, attrs.beta, size, out);
        Tensor scaled = attrs.alpha == 1 ? a : copy_as(a, a.dtype());
        if (attrs.alpha != 1)
          for (T& element : scaled.mutable_data<T>())
            element = static_cast<T>(static_cast<T>(attrs.alpha) * element);
        add_product<T>(inner.pool(), size.rows, size.columns, size.depth,
                       {scaled.data<T>().data(), a.dim(1), attrs.transpose_a},
                       {b.data<T>().data(), b.dim(1), attrs.transpose_b}, {out, size.columns});
      });
    });
  };
}

void infer_gemm(InferContext& context) {
  context.set_output(
      0, context.input_dtype(0),
      gemm_shape(GemmAttrs::from(context.node()), context.input_shape(0), context.input_shape(1)));
}

OperandAxes float_gemm_axes(const Node& node) { return gemm_axes(node, 0, 1, 2); }

Cost gemm_cost(const PrepareContext& context) {
  return {.macs = GemmSizes::of(GemmAttrs::from(context.node()),
                                concrete(*context.input_type(0)->shape).value(),
                                concrete(*context.input_type(1)->shape).value())
                      .macs()};
}

}  // namespace

GemmAttrs GemmAttrs::from(const Node& node) {
  return {.alpha = get_float(node, "alpha", 1),
          .beta = get_float(node, "beta", 1),
          .transpose_a = get_bool(node, "transA", false),
          .transpose_b = get_bool(node, "transB", false)};
}

Attributes GemmAttrs::to_attributes(std::int64_t opset) const {
  Attributes attributes;
  if (alpha != 1) attributes["alpha"] = alpha;
  if (beta != 1) attributes["beta"] = beta;
  if (transpose_a) attributes["transA"] = 1;
  if (transpose_b) attributes["transB"] = 1;
  if (opset < 7) attributes["broadcast"] = 1;
  return attributes;
}

bool is_gemm_type(DType type) {
  return type == DType::float16 || type == DType::float32 || type == DType::float64;
}

bool gemm_bias_is_optional(std::int64_t opset) { return opset >= 11; }

GemmSizes GemmSizes::of(const GemmAttrs& attrs, const Dims& a, const Dims& b) {
  require(a.size() == 2 && b.size() == 2, "expected matrices, found {} and {}", to_string(a),
          to_string(b));
  const GemmSizes found{attrs.transpose_a ? a[1] : a[0], attrs.transpose_b ? b[0] : b[1],
                        attrs.transpose_a ? a[0] : a[1]};
  const std::int64_t depth = attrs.transpose_b ? b[1] : b[0];
  require(found.depth == depth, "expected matrices that can be multiplied, found depths {} and {}",
          found.depth, depth);
  return found;
}

Shape gemm_shape(const GemmAttrs& attrs, const Shape* a, const Shape* b) {
  Shape shape(2);
  Dim depth;
  if (a != nullptr) {
    require(a->size() == 2, "expected a matrix A, found {}", to_string(*a));
    shape[0] = (*a)[attrs.transpose_a ? 1 : 0];
    depth = (*a)[attrs.transpose_a ? 0 : 1];
  }
  if (b != nullptr) {
    require(b->size() == 2, "expected a matrix B, found {}", to_string(*b));
    shape[1] = (*b)[attrs.transpose_b ? 0 : 1];
    unify(depth, (*b)[attrs.transpose_b ? 1 : 0], "the depths of A and B");
  }
  return shape;
}

OperandAxes gemm_axes(const Node& node, std::size_t a, std::size_t b, std::size_t c) {
  const GemmAttrs attrs = GemmAttrs::from(node);
  const AxisRole rows{.kind = AxisRole::Kind::output, .output_axis = 0};
  const AxisRole columns{.kind = AxisRole::Kind::output, .output_axis = 1};
  const AxisRole depth{.kind = AxisRole::Kind::reduced};
  OperandAxes axes(std::max({node.input_count(), a + 1, b + 1}));
  axes[a] = {rows, depth};
  axes[b] = {depth, columns};
  if (attrs.transpose_a) std::swap(axes[a][0], axes[a][1]);
  if (attrs.transpose_b) std::swap(axes[b][0], axes[b][1]);
  const Value* bias = node.input(c);
  if (bias != nullptr && bias->type.shape) {
    const Shape& shape = *bias->type.shape;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const bool last = i + 1 == shape.size();
      const bool stretched = !shape[i].is_known() || shape[i].value() == 1;
      axes[c].push_back(stretched ? AxisRole{} : last ? columns : rows);
    }
  }
  return axes;
}

OPERATORS(gemm) {
  registry.add(OpDef{.name = "Gemm",
                     .infer = infer_gemm,
                     .prepare = prepare_gemm,
                     .axes = float_gemm_axes,
                     .cost = gemm_cost});
}

}  // namespace onnxpress
