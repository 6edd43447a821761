// Gradients of pooling.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/pool_walk.h"

namespace onnxpress {
namespace {

// The first of equal maxima gets the gradient, as the forward kernel finds it.
BackwardKernel prepare_max(const PrepareContext& plan) {
  return [attrs = PoolAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const PoolCall call = PoolCall::of(attrs, x.dims());
    const WindowGeometry& g = call.geometry;
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const in = x.data<T>().data();
      const T* const from = dy.data<T>().data();
      const auto out = dx.mutable_data<T>();
      std::ranges::fill(out, T(0));
      for_each_output(context.pool(), call.planes, g,
                      [&](std::int64_t plane, std::int64_t offset, const std::int64_t(&o)[3]) {
                        const T* cells = in + plane * g.input_size();
                        std::int64_t best = -1;
                        for_each_tap(g, o, [&](std::int64_t i) {
                          if (best < 0 || cells[i] > cells[best] ||
                              (cells[i] != cells[i] && cells[best] == cells[best]))
                            best = i;
                        });
                        if (best >= 0)
                          out[static_cast<std::size_t>(plane * g.input_size() + best)] +=
                              from[plane * g.output_size() + offset];
                      });
    });
  };
}

BackwardKernel prepare_average(const PrepareContext& plan) {
  return [attrs = PoolAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const PoolCall call = PoolCall::of(attrs, context.input_dims(0));
    const WindowGeometry& g = call.geometry;
    const AverageCells divisor(attrs, context.input_dims(0), g);
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const from = dy.data<T>().data();
      const auto out = dx.mutable_data<T>();
      std::ranges::fill(out, T(0));
      for_each_output(context.pool(), call.planes, g,
                      [&](std::int64_t plane, std::int64_t offset, const std::int64_t(&o)[3]) {
                        T* cells = out.data() + plane * g.input_size();
                        std::int64_t count = 0;
                        for_each_tap(g, o, [&](std::int64_t) { ++count; });
                        count = divisor.count(o, count);
                        if (count == 0) return;
                        const T share =
                            from[plane * g.output_size() + offset] / static_cast<T>(count);
                        for_each_tap(g, o, [&](std::int64_t i) { cells[i] += share; });
                      });
    });
  };
}

// d|x|_p / dx = sign(x) (|x| / y)^(p - 1); 0 where y is.
template <class T>
T norm_share(T x, T y, double p) {
  if (y == 0 || x == 0) return T(0);
  const T magnitude = static_cast<T>(std::pow(std::fabs(x / y), p - 1));
  return x < 0 ? -magnitude : magnitude;
}

BackwardKernel prepare_norm(const PrepareContext& plan) {
  return [attrs = PoolAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const Tensor& y = context.required_output(0);
    const PoolCall call = PoolCall::of(attrs, x.dims());
    const WindowGeometry& g = call.geometry;
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const in = x.data<T>().data();
      const T* const norms = y.data<T>().data();
      const T* const from = dy.data<T>().data();
      const auto out = dx.mutable_data<T>();
      std::ranges::fill(out, T(0));
      for_each_output(
          context.pool(), call.planes, g,
          [&](std::int64_t plane, std::int64_t offset, const std::int64_t(&o)[3]) {
            const std::int64_t at = plane * g.output_size() + offset;
            const std::int64_t base = plane * g.input_size();
            for_each_tap(g, o, [&](std::int64_t i) {
              out[static_cast<std::size_t>(base + i)] +=
                  from[at] * norm_share(in[base + i], norms[at], attrs.p);
            });
          });
    });
  };
}

enum class GlobalKind { average, max, norm };

template <GlobalKind kind>
BackwardKernel prepare_global(const PrepareContext& plan) {
  return [p = kind == GlobalKind::norm ? pool_exponent(plan.node()) : 2](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Dims& dims = context.input_dims(0);
    const std::int64_t cells = element_count(std::span(dims).subspan(2));
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const from = dy.data<T>().data();
      const T* const in =
          kind == GlobalKind::average ? nullptr : context.required_input(0).data<T>().data();
      const T* const norms =
          kind == GlobalKind::norm ? context.required_output(0).data<T>().data() : nullptr;
      T* const out = dx.mutable_data<T>().data();
      context.pool().parallel_for(dims[0] * dims[1], 8, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t plane = begin; plane < end; ++plane) {
          T* const target = out + plane * cells;
          const T* const source = in == nullptr ? nullptr : in + plane * cells;
          if (kind == GlobalKind::average) {
            std::fill_n(target, cells, from[plane] / static_cast<T>(cells));
          } else if (kind == GlobalKind::max) {
            std::fill_n(target, cells, T(0));
            target[std::max_element(source, source + cells) - source] = from[plane];
          } else {
            for (std::int64_t i = 0; i < cells; ++i)
              target[i] = from[plane] * norm_share(source[i], norms[plane], p);
          }
        }
      });
    });
  };
}

}  // namespace

OPERATORS(pool_gradient) {
  const auto add = [&](const char* op, auto prepare, std::uint64_t inputs, std::uint64_t outputs) {
    registry.add(GradientDef{
        .name = op, .prepare = prepare, .reads_inputs = inputs, .reads_outputs = outputs});
  };
  add("MaxPool", prepare_max, bits_of(0), 0);
  add("AveragePool", prepare_average, 0, 0);
  add("LpPool", prepare_norm, bits_of(0), bits_of(0));
  add("GlobalAveragePool", prepare_global<GlobalKind::average>, 0, 0);
  add("GlobalMaxPool", prepare_global<GlobalKind::max>, bits_of(0), 0);
  add("GlobalLpPool", prepare_global<GlobalKind::norm>, bits_of(0), bits_of(0));
}

}  // namespace onnxpress
