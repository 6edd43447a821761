// TopK.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Opset 1 has `k` as an attribute; opsets 1 and 10 always give the largest in order.
struct TopKAttrs {
  std::int64_t axis = -1;
  std::optional<std::int64_t> k;
  bool largest = true;

  static TopKAttrs from(const Node& node) {
    TopKAttrs attrs{.axis = get_int(node, "axis", -1)};
    if (node.opset() < 10) attrs.k = require_int(node, "k");
    if (node.opset() >= 11) attrs.largest = get_bool(node, "largest", true);
    return attrs;
  }

  static std::int64_t checked(std::int64_t k, std::int64_t size) {
    require(0 <= k && k <= size, "expected k from 0 to {}, found {}", size, k);
    return k;
  }
};

// A total order: NaN is above all numbers.
template <class T>
bool above(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a)) return !std::isnan(b);
    if (std::isnan(b)) return false;
  }
  return a > b;
}

template <class T>
void top_k(KernelContext& context, const Tensor& x, std::size_t axis, std::int64_t k,
           bool largest) {
  Dims dims = x.dims();
  dims[axis] = k;
  const std::int64_t size = x.dim(axis);
  const std::int64_t outer = element_count(std::span(dims).first(axis));
  const std::int64_t inner = element_count(std::span(dims).subspan(axis + 1));
  const T* data = x.data<T>().data();
  T* values = context.output(0, x.dtype(), dims).template mutable_data<T>().data();
  std::int64_t* indices = context.output(1, DType::int64, dims).mutable_data<std::int64_t>().data();
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(size, 1));
  context.pool().parallel_for(outer * inner, block, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(size));
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t i = line % inner;
      const T* from = data + line / inner * size * inner + i;
      const std::int64_t to = line / inner * k * inner + i;
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + k, order.end(),
                        [&](std::int64_t a, std::int64_t b) {
                          const T left = from[a * inner], right = from[b * inner];
                          if (above(left, right)) return largest;
                          if (above(right, left)) return !largest;
                          return a < b;
                        });
      for (std::int64_t rank = 0; rank < k; ++rank) {
        const std::int64_t index = order[static_cast<std::size_t>(rank)];
        values[to + rank * inner] = from[index * inner];
        indices[to + rank * inner] = index;
      }
    }
  });
}

Kernel prepare_top_k(const PrepareContext& prepare) {
  return [attrs = TopKAttrs::from(prepare.node())](KernelContext& context) {
    std::int64_t k = attrs.k.value_or(0);
    if (!attrs.k) {
      const Tensor& given = context.required_input(1);
      require(given.size() == 1, "expected one k, found {}", to_string(given.dims()));
      k = given.to_ints()[0];
    }
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const auto axis = static_cast<std::size_t>(normalize_axis(attrs.axis, x.rank()));
      TopKAttrs::checked(k, x.dim(axis));
      dispatch<float, double, std::int8_t, std::int16_t, std::int32_t, std::int64_t, std::uint8_t,
               std::uint16_t, std::uint32_t, std::uint64_t>(
          x.dtype(),
          [&]<class T>(std::type_identity<T>) { top_k<T>(inner, x, axis, k, attrs.largest); });
    });
  };
}

void infer_top_k(InferContext& context) {
  const TopKAttrs attrs = TopKAttrs::from(context.node());
  std::optional<std::int64_t> k = attrs.k;
  if (!k)
    if (const auto given = context.input_ints(1); given && given->size() == 1) k = given->front();
  std::optional<Shape> shape;
  if (const Shape* x = context.input_shape(0)) {
    shape = *x;
    Dim& dim = (*shape)[static_cast<std::size_t>(normalize_axis(attrs.axis, x->size()))];
    if (k && dim.is_known()) TopKAttrs::checked(*k, dim.value());
    dim = k ? Dim(*k) : Dim();
  }
  context.set_output(0, context.input_dtype(0), shape);
  context.set_output(1, DType::int64, std::move(shape));
}

}  // namespace

OPERATORS(topk) {
  registry.add(OpDef{.name = "TopK", .infer = infer_top_k, .prepare = prepare_top_k});
}

}  // namespace onnxpress
