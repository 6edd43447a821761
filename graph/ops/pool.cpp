#include "graph/ops/pool.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/pool_walk.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_max_pool(const PrepareContext& prepare) {
  return [attrs = PoolAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Dims dims = attrs.output_dims(x.dims());
      Tensor& y = inner.output(0, x.dtype(), dims);
      // Not through `inner`, which would convert int64 back to a narrower input's type.
      std::int64_t* indices =
          context.wants_output(1)
              ? context.output(1, DType::int64, dims).mutable_data<std::int64_t>().data()
              : nullptr;
      max_pool(inner.pool(), attrs, x, y, indices);
    });
  };
}

Kernel prepare_average_pool(const PrepareContext& prepare) {
  return [attrs = PoolAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      Tensor& y = inner.output(0, x.dtype(), attrs.output_dims(x.dims()));
      average_pool(inner.pool(), attrs, x, y);
    });
  };
}

template <class T>
T power_sum_root(double sum, double p) {
  if (p == 1) return static_cast<T>(sum);
  return static_cast<T>(p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / p));
}

Kernel prepare_lp_pool(const PrepareContext& prepare) {
  return [attrs = PoolAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const PoolCall call = PoolCall::of(attrs, x.dims());
      const WindowGeometry& g = call.geometry;
      Tensor& y = inner.output(0, x.dtype(), call.dims);
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        for_each_output(inner.pool(), call.planes, g,
                        [&](std::int64_t plane, std::int64_t offset, const std::int64_t(&o)[3]) {
                          double sum = 0;
                          for_each_tap(g, o, [&](std::int64_t i) {
                            sum += std::pow(
                                std::fabs(static_cast<double>(in[plane * g.input_size() + i])),
                                attrs.p);
                          });
                          out[plane * g.output_size() + offset] = power_sum_root<T>(sum, attrs.p);
                        });
      });
    });
  };
}

enum class GlobalKind { average, max, lp };

template <GlobalKind kind>
Kernel prepare_global(const PrepareContext& prepare) {
  return [p = kind == GlobalKind::lp ? pool_exponent(prepare.node()) : 2](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(x.rank() >= 2, "expected an input of at least 2 axes, found {}", to_string(x.dims()));
      Dims dims(x.rank(), 1);
      dims[0] = x.dim(0);
      dims[1] = x.dim(1);
      const std::int64_t cells = element_count(std::span(x.dims()).subspan(2));
      require(cells > 0, "expected at least one cell to pool over, found {}", to_string(x.dims()));
      Tensor& y = inner.output(0, x.dtype(), dims);
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(dims[0] * dims[1], 8, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t plane = begin; plane < end; ++plane) {
            const T* first = in + plane * cells;
            if (kind == GlobalKind::max) {
              out[plane] = *std::max_element(first, first + cells);
              continue;
            }
            double sum = 0;
            for (std::int64_t i = 0; i < cells; ++i) {
              const double value = first[i];
              sum += kind == GlobalKind::average ? value : std::pow(std::fabs(value), p);
            }
            out[plane] = kind == GlobalKind::average
                             ? static_cast<T>(sum / static_cast<double>(cells))
                             : power_sum_root<T>(sum, p);
          }
        });
      });
    });
  };
}

void infer_pool(InferContext& context) {
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  const Shape shape = PoolAttrs::from(context.node()).output_shape(*x);
  context.set_output(0, context.input_dtype(0), shape);
  context.set_output(1, DType::int64, shape);
}

void infer_global(InferContext& context) {
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  require(x->size() >= 2, "expected an input of at least 2 axes, found {}", to_string(*x));
  Shape shape(x->size(), Dim(1));
  shape[0] = (*x)[0];
  shape[1] = (*x)[1];
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes pool_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || x->type.shape->size() < 2) return axes;
  axes[0].assign(x->type.shape->size(), {.kind = AxisRole::Kind::window});
  for (std::size_t i = 0; i < 2; ++i)
    axes[0][i] = {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)};
  return axes;
}

}  // namespace

double pool_exponent(const Node& node) {
  const double p = node.opset() < 2 ? double{get_float(node, "p", 2)}
                                    : static_cast<double>(get_int(node, "p", 2));
  require(p > 0 && std::isfinite(p), "attribute 'p': expected a number above 0, found {}", p);
  return p;
}

PoolAttrs PoolAttrs::from(const Node& node) {
  PoolAttrs attrs{.window = Window::from(node, require_ints(node, "kernel_shape"))};
  attrs.count_include_pad = get_bool(node, "count_include_pad", false);
  attrs.count_beyond_padding = node.is("QLinearAveragePool", "com.microsoft");
  attrs.column_major_indices = get_bool(node, "storage_order", false);
  if (node.is("LpPool")) attrs.p = pool_exponent(node);
  return attrs;
}

Attributes PoolAttrs::to_attributes() const {
  Attributes attributes;
  window.write(attributes);
  if (count_include_pad) attributes["count_include_pad"] = 1;
  if (column_major_indices) attributes["storage_order"] = 1;
  return attributes;
}

Dims PoolAttrs::output_dims(const Dims& input) const {
  return concrete(output_shape(to_shape(input))).value();
}

Shape PoolAttrs::output_shape(const Shape& input) const {
  require(input.size() == window.rank() + 2, "expected an input of {} axes, found {}",
          window.rank() + 2, to_string(input));
  Shape shape = input;
  for (std::size_t axis = 0; axis < window.rank(); ++axis)
    shape[axis + 2] = window.output_dim(axis, input[axis + 2]);
  return shape;
}

void max_pool(ThreadPool& pool, const PoolAttrs& attrs, const Tensor& x, Tensor& y,
              std::int64_t* indices) {
  const PoolCall call = PoolCall::of(attrs, x.dims());
  const WindowGeometry& g = call.geometry;
  dispatch_numbers(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = x.data<T>().data();
    T* out = y.mutable_data<T>().data();
    for_each_output(pool, call.planes, g,
                    [&](std::int64_t plane, std::int64_t offset, const std::int64_t(&o)[3]) {
                      const T* cells = in + plane * g.input_size();
                      std::int64_t best = -1;
                      for_each_tap(g, o, [&](std::int64_t i) {
                        if (best < 0 || cells[i] > cells[best] ||
                            (cells[i] != cells[i] && cells[best] == cells[best]))
                          best = i;
                      });
                      const std::int64_t at = plane * g.output_size() + offset;
                      out[at] = best < 0 ? std::numeric_limits<T>::lowest() : cells[best];
                      if (indices == nullptr) return;
                      if (attrs.column_major_indices && best >= 0) {
                        const std::int64_t i2 = best % g.input[2];
                        const std::int64_t i1 = best / g.input[2] % g.input[1];
                        const std::int64_t i0 = best / g.input[2] / g.input[1];
                        best = (i2 * g.input[1] + i1) * g.input[0] + i0;
                      }
                      indices[at] = plane * g.input_size() + best;
                    });
  });
}

void average_pool(ThreadPool& pool, const PoolAttrs& attrs, const Tensor& x, Tensor& y) {
  const PoolCall call = PoolCall::of(attrs, x.dims());
  const WindowGeometry& g = call.geometry;
  const AverageCells divisor(attrs, x.dims(), g);
  dispatch_floats(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = x.data<T>().data();
    T* out = y.mutable_data<T>().data();
    for_each_output(
        pool, call.planes, g,
        [&](std::int64_t plane, std::int64_t offset, const std::int64_t(&o)[3]) {
          const T* cells = in + plane * g.input_size();
          T sum = 0;
          std::int64_t count = 0;
          for_each_tap(g, o, [&](std::int64_t i) {
            sum += cells[i];
            ++count;
          });
          count = divisor.count(o, count);
          out[plane * g.output_size() + offset] = count == 0 ? T(0) : sum / static_cast<T>(count);
        });
  });
}

OPERATORS(pool) {
  const auto add = [&](const char* op, auto prepare, void (*infer)(InferContext&)) {
    registry.add(OpDef{.name = op, .infer = infer, .prepare = prepare, .axes = pool_axes});
  };
  add("MaxPool", prepare_max_pool, infer_pool);
  add("AveragePool", prepare_average_pool, infer_pool);
  add("LpPool", prepare_lp_pool, infer_pool);
  add("GlobalAveragePool", prepare_global<GlobalKind::average>, infer_global);
  add("GlobalMaxPool", prepare_global<GlobalKind::max>, infer_global);
  add("GlobalLpPool", prepare_global<GlobalKind::lp>, infer_global);
}

}  // namespace onnxpress
