#include "graph/ops/matmul.h"

#include <algorithm>

#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"

namespace onnxpress {
namespace {

Kernel prepare_matmul(const PrepareContext&) {
  return [](KernelContext& context) {
    run_as(context, arithmetic_type, [](KernelContext& inner) {
      const Tensor& a = inner.required_input(0);
      const Tensor& b = inner.required_input(1);
      const MatMulSizes size = MatMulSizes::of(a.dims(), b.dims());
      Tensor& y = inner.output(0, a.dtype(), size.output);
      dispatch_numbers(a.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const auto out = y.mutable_data<T>();
        std::fill(out.begin(), out.end(), T(0));
        add_products<T>(inner.pool(), size, a.data<T>().data(), b.data<T>().data(), out.data());
      });
    });
  };
}

void infer_matmul(InferContext& context) {
  const Shape* a = context.input_shape(0);
  const Shape* b = context.input_shape(1);
  std::optional<Shape> shape;
  if (a != nullptr && b != nullptr) shape = matmul_shape(*a, *b);
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes float_matmul_axes(const Node& node) { return matmul_axes(node, 0, 1); }

Cost matmul_cost(const PrepareContext& context) {
  const MatMulSizes size = MatMulSizes::of(concrete(*context.input_type(0)->shape).value(),
                                           concrete(*context.input_type(1)->shape).value());
  return {.macs = size.macs()};
}

}  // namespace

MatMulSizes MatMulSizes::of(const Dims& a, const Dims& b) {
  MatMulSizes size;
  size.output = *concrete(matmul_shape(to_shape(a), to_shape(b)));
  size.rows = a.size() > 1 ? a[a.size() - 2] : 1;
  size.depth = a.back();
  size.columns = b.size() > 1 ? b.back() : 1;
  const auto batch = [](const Dims& dims) {
    return dims.size() > 2 ? Dims(dims.begin(), dims.end() - 2) : Dims{};
  };
  const Dims a_batch = batch(a);
  const Dims b_batch = batch(b);
  const Dims all = broadcast(a_batch, b_batch);
  const auto a_strides = broadcast_strides(a_batch, all);
  const auto b_strides = broadcast_strides(b_batch, all);
  const std::int64_t count = element_count(all);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t rest = i;
    std::int64_t in_a = 0;
    std::int64_t in_b = 0;
    for (std::size_t axis = all.size(); axis-- > 0; rest /= all[axis]) {
      in_a += rest % all[axis] * a_strides[axis];
      in_b += rest % all[axis] * b_strides[axis];
    }
    size.a_offsets.push_back(in_a * size.rows * size.depth);
    size.b_offsets.push_back(in_b * size.depth * size.columns);
  }
  return size;
}

Shape matmul_shape(const Shape& a, const Shape& b) {
  require(!a.empty() && !b.empty(), "expected operands of at least one axis, found {} and {}",
          to_string(a), to_string(b));
  unify(a.back(), b.size() > 1 ? b[b.size() - 2] : b[0], "the depths of the operands");
  const auto batch = [](const Shape& shape) {
    return shape.size() > 2 ? Shape(shape.begin(), shape.end() - 2) : Shape{};
  };
  Shape shape = broadcast(batch(a), batch(b));
  if (a.size() > 1) shape.push_back(a[a.size() - 2]);
  if (b.size() > 1) shape.push_back(b.back());
  return shape;
}

// Batch axes of the longer operand, by position from the right.
OperandAxes matmul_axes(const Node& node, std::size_t a_index, std::size_t b_index) {
  OperandAxes axes(node.input_count());
  const Value* a = node.input(a_index);
  const Value* b = node.input(b_index);
  if (a == nullptr || b == nullptr || !a->type.shape || !b->type.shape) return axes;
  const std::size_t ranks[] = {a->type.shape->size(), b->type.shape->size()};
  if (ranks[0] == 0 || ranks[1] == 0) return axes;
  const std::size_t batch = std::max({ranks[0], ranks[1], std::size_t{2}}) - 2;
  const AxisRole reduced{.kind = AxisRole::Kind::reduced};
  const auto output = [](std::size_t axis) {
    return AxisRole{.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(axis)};
  };
  const Shape* shapes[] = {&*a->type.shape, &*b->type.shape};
  const std::size_t inputs[] = {a_index, b_index};
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t axis = 0; axis + 2 < ranks[i]; ++axis) {
      const Dim& dim = (*shapes[i])[axis];
      axes[inputs[i]].push_back(
          dim.is_known() && dim.value() == 1 ? AxisRole{} : output(batch + axis + 2 - ranks[i]));
    }
  if (ranks[0] > 1) axes[a_index].push_back(output(batch));
  axes[a_index].push_back(reduced);
  axes[b_index].push_back(reduced);
  if (ranks[1] > 1) axes[b_index].push_back(output(ranks[0] > 1 ? batch + 1 : batch));
  return axes;
}

std::int64_t MatMulSizes::macs() const {
  return static_cast<std::int64_t>(a_offsets.size()) * rows * columns * depth;
}

template <class T>
void add_products(ThreadPool& pool, const MatMulSizes& size, const T* a, const T* b, T* y) {
  const auto one = [&](std::size_t product, auto&&... where) {
    add_product<T>(
        where..., size.rows, size.columns, size.depth, {a + size.a_offsets[product], size.depth},
        {b + size.b_offsets[product], size.columns},
        {y + static_cast<std::int64_t>(product) * size.rows * size.columns, size.columns});
  };
  if (size.a_offsets.size() == 1) return one(0, pool);
  pool.parallel_for(
      static_cast<std::int64_t>(size.a_offsets.size()), 1,
      [&](std::int64_t begin, std::int64_t) { one(static_cast<std::size_t>(begin)); });
}

#define ONNXPRESS_INSTANTIATE(T) \
  template void add_products<T>(ThreadPool&, const MatMulSizes&, const T*, const T*, T*);
ONNXPRESS_INSTANTIATE(float)
ONNXPRESS_INSTANTIATE(double)
ONNXPRESS_INSTANTIATE(std::int64_t)
ONNXPRESS_INSTANTIATE(std::uint64_t)
#undef ONNXPRESS_INSTANTIATE

OPERATORS(matmul) {
  registry.add(OpDef{.name = "MatMul",
                     .infer = infer_matmul,
                     .prepare = prepare_matmul,
                     .axes = float_matmul_axes,
                     .cost = matmul_cost});
}

}  // namespace onnxpress
