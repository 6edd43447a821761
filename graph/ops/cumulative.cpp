// CumSum, CumProd.
#include <algorithm>
#include <functional>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Unsigned where T is an integer: wraps around.
template <class T>
using Accumulator = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                                std::type_identity<T>>::type;

template <class T, class Combine>
void accumulate(KernelContext& context, const Tensor& x, std::size_t axis, bool exclusive,
                bool reverse, T neutral, Combine combine) {
  const std::int64_t size = x.dim(axis);
  const std::int64_t inner = element_count(std::span(x.dims()).subspan(axis + 1));
  const std::int64_t lines = element_count(std::span(x.dims()).first(axis)) * inner;
  const T* from = x.data<T>().data();
  T* to = context.output(0, x.dtype(), x.dims()).template mutable_data<T>().data();
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(size, 1));
  context.pool().parallel_for(lines, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t start = line / inner * size * inner + line % inner;
      Accumulator<T> total = static_cast<Accumulator<T>>(neutral);
      for (std::int64_t step = 0; step < size; ++step) {
        const std::int64_t at = start + (reverse ? size - 1 - step : step) * inner;
        const auto value = static_cast<Accumulator<T>>(from[at]);
        if (exclusive) to[at] = static_cast<T>(total);
        total = combine(total, value);
        if (!exclusive) to[at] = static_cast<T>(total);
      }
    }
  });
}

std::int64_t given_axis(const Tensor& axis) {
  require(axis.size() == 1 && is_integer(axis.dtype()), "expected one axis, found {}{}",
          name(axis.dtype()), to_string(axis.dims()));
  return axis.to_ints()[0];
}

template <bool product>
Kernel prepare_cumulative(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [exclusive = get_bool(node, "exclusive", false),
          reverse = get_bool(node, "reverse", false)](KernelContext& context) {
    const std::int64_t given = given_axis(context.required_input(1));
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const auto axis = static_cast<std::size_t>(normalize_axis(given, x.rank()));
      dispatch_numbers(x.dtype(), [&]<class T>(std::type_identity<T>) {
        if constexpr (product)
          accumulate<T>(inner, x, axis, exclusive, reverse, T{1}, std::multiplies<>());
        else
          accumulate<T>(inner, x, axis, exclusive, reverse, T{0}, std::plus<>());
      });
    });
  };
}

void infer_cumulative(InferContext& context) {
  const Shape* x = context.input_shape(0);
  const Tensor* axis = context.input_value(1);
  if (x != nullptr && axis != nullptr) normalize_axis(given_axis(*axis), x->size());
  infer_same_as_first(context);
}

}  // namespace

OPERATORS(cumulative) {
  registry.add(OpDef{.name = "CumSum",
                     .since = 11,
                     .infer = infer_cumulative,
                     .prepare = prepare_cumulative<false>});
  registry.add(OpDef{.name = "CumProd",
                     .since = 26,
                     .infer = infer_cumulative,
                     .prepare = prepare_cumulative<true>});
}

}  // namespace onnxpress
