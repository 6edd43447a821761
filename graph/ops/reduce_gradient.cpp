// Gradients of ReduceSum and its family, CumSum and LpNormalization.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/reduce.h"

namespace onnxpress {
namespace {

// A reduction of x seen with all its axes: what each output is made of, and how many elements.
struct Reduced {
  Dims dims;  // of the result with axes of 1 in place of the reduced ones
  std::int64_t count = 1;

  Reduced(BackwardContext& context, const ReduceAttrs& attrs) {
    const Dims& x = context.input_dims(0);
    std::vector<std::int64_t> axes;
    if (const Tensor* input = context.input(1))
      axes = input->to_ints();
    else if (attrs.axes)
      axes = *attrs.axes;
    axes = ReduceAttrs::effective(axes, attrs.noop_with_empty_axes, x.size());
    dims = reduced_dims(x, axes, true);
    for (const std::int64_t axis : axes) count *= x[static_cast<std::size_t>(axis)];
  }
};

// dx = fn(dy, x, y), of each element and the output it goes into.
template <class Fn>
BackwardKernel prepare_elementwise(const PrepareContext& plan, bool reads_x, bool reads_y, Fn fn) {
  return [attrs = ReduceAttrs::from(plan.node()), reads_x, reads_y, fn](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Reduced reduced(context, attrs);
    const BroadcastOperand g(dy, reduced.dims);
    const BroadcastOperand x = reads_x ? BroadcastOperand(context.required_input(0)) : g;
    const BroadcastOperand y =
        reads_y ? BroadcastOperand(context.required_output(0), reduced.dims) : g;
    context.forward_gradient(0, combined(context.pool(), context.input_dims(0), g, x, y,
                                         [fn, n = reduced.count](auto a, auto b, auto c) {
                                           return fn(a, b, c, static_cast<decltype(a)>(n));
                                         }));
  };
}

BackwardKernel prepare_sum(const PrepareContext& plan) {
  return prepare_elementwise(plan, false, false, [](auto g, auto, auto, auto) { return g; });
}
BackwardKernel prepare_mean(const PrepareContext& plan) {
  return prepare_elementwise(plan, false, false, [](auto g, auto, auto, auto n) { return g / n; });
}
BackwardKernel prepare_l1(const PrepareContext& plan) {
  return prepare_elementwise(plan, true, false, [](auto g, auto x, auto, auto) {
    return x > 0 ? g : x < 0 ? -g : g * 0;
  });
}
BackwardKernel prepare_l2(const PrepareContext& plan) {
  return prepare_elementwise(plan, true, true, [](auto g, auto x, auto y, auto) {
    return y == 0 ? y : g * x / y;
  });
}
BackwardKernel prepare_sum_square(const PrepareContext& plan) {
  return prepare_elementwise(plan, true, false,
                             [](auto g, auto x, auto, auto) { return 2 * g * x; });
}
BackwardKernel prepare_log_sum(const PrepareContext& plan) {
  return prepare_elementwise(plan, false, true,
                             [](auto g, auto, auto y, auto) { return g * std::exp(-y); });
}
BackwardKernel prepare_log_sum_exp(const PrepareContext& plan) {
  return prepare_elementwise(plan, true, true,
                             [](auto g, auto x, auto y, auto) { return g * std::exp(x - y); });
}

// Equal extremes share the gradient.
BackwardKernel prepare_extreme(const PrepareContext& plan) {
  return [attrs = ReduceAttrs::from(plan.node())](BackwardContext& context) {
    const Reduced reduced(context, attrs);
    const Tensor& x = context.required_input(0);
    const BroadcastOperand g(context.required_gradient(0), reduced.dims);
    const BroadcastOperand y(context.required_output(0), reduced.dims);
    const Tensor holds =
        combined(context.pool(), x.dims(), x, y, y, [](auto value, auto extreme, auto) {
          return static_cast<decltype(value)>(value == extreme);
        });
    const Tensor count = sum_to(context.pool(), holds, reduced.dims);
    context.forward_gradient(
        0, combined(context.pool(), x.dims(), g, holds, count,
                    [](auto gradient, auto is_one, auto of) { return gradient * is_one / of; }));
  };
}

// Each factor gets the product of the others, also where some are 0.
BackwardKernel prepare_product(const PrepareContext& plan) {
  return [attrs = ReduceAttrs::from(plan.node())](BackwardContext& context) {
    const Reduced reduced(context, attrs);
    const Tensor& x = context.required_input(0);
    const BroadcastOperand g(context.required_gradient(0), reduced.dims);
    const auto add_up = [&](auto fn) {
      return sum_to(context.pool(), combined(context.pool(), x.dims(), x, x, x, fn), reduced.dims);
    };
    const Tensor zeros =
        add_up([](auto v, auto, auto) { return static_cast<decltype(v)>(v == 0); });
    const Tensor logarithm =
        add_up([](auto v, auto, auto) { return v == 0 ? v : std::log(std::fabs(v)); });
    const Tensor negative =
        add_up([](auto v, auto, auto) { return static_cast<decltype(v)>(v < 0); });
    const Tensor magnitude = combined(
        context.pool(), reduced.dims, logarithm, negative, negative,
        [](auto log, auto minus, auto) {
          return std::fmod(minus, decltype(minus)(2)) == 0 ? std::exp(log) : -std::exp(log);
        });  // of the factors that are not 0
    const Tensor share = combined(context.pool(), x.dims(), x, zeros, magnitude,
                                  [](auto v, auto none, auto product) {
                                    if (v == 0) return none == 1 ? product : v;
                                    return none == 0 ? product / v : none * 0;
                                  });
    context.forward_gradient(0, combined(context.pool(), x.dims(), g, share, share,
                                         [](auto gradient, auto of, auto) { return gradient * of; }));
  };
}

// The running sum backwards.
BackwardKernel prepare_cumulative_sum(const PrepareContext& plan) {
  const Node& node = plan.node();
  return [exclusive = get_bool(node, "exclusive", false),
          reverse = get_bool(node, "reverse", false)](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    Tensor& dx = context.gradient(0);
    const auto axis = static_cast<std::size_t>(
        normalize_axis(context.required_input(1).to_ints().at(0), dx.rank()));
    const std::int64_t size = dx.dim(axis);
    const std::int64_t inner = element_count(std::span(dx.dims()).subspan(axis + 1));
    const std::int64_t lines = element_count(std::span(dx.dims()).first(axis)) * inner;
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const from = dy.data<T>().data();
      T* const to = dx.mutable_data<T>().data();
      for (std::int64_t line = 0; line < lines; ++line) {
        const std::int64_t start = line / inner * size * inner + line % inner;
        T total = 0;
        for (std::int64_t step = 0; step < size; ++step) {
          const std::int64_t at = start + (reverse ? step : size - 1 - step) * inner;
          if (exclusive) to[at] = total;
          total += from[at];
          if (!exclusive) to[at] = total;
        }
      }
    });
  };
}

// y = x / n along an axis, n = |x|_p: dx = (g - n' (sum g y)) / n with n' = dn/dx, which is sign(x)
// for p = 1 and y for p = 2.
template <class T>
void normalized_line(const T* g, const T* x, T* dx, std::int64_t size, std::int64_t step, bool is_l1) {
  double norm = 0, product = 0;
  for (std::int64_t k = 0; k < size * step; k += step) {
    const auto value = static_cast<double>(x[k]);
    norm += is_l1 ? std::fabs(value) : value * value;
    product += static_cast<double>(g[k]) * value;
  }
  if (!is_l1) norm = std::sqrt(norm);
  for (std::int64_t k = 0; k < size * step; k += step) {
    const auto value = static_cast<double>(x[k]);
    const double slope = !is_l1 ? value / norm : value > 0 ? 1 : value < 0 ? -1 : 0;
    dx[k] = norm == 0 ? T(0)
                      : static_cast<T>((static_cast<double>(g[k]) - slope * product / norm) / norm);
  }
}

BackwardKernel prepare_lp_norm(const PrepareContext& plan) {
  const Node& node = plan.node();
  return [given = get_int(node, "axis", -1), p = get_int(node, "p", 2)](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    Tensor& dx = context.gradient(0);
    if (x.size() == 0) return;
    const auto axis = static_cast<std::size_t>(normalize_axis(given, x.rank()));
    const std::int64_t size = x.dim(axis);
    const std::int64_t step = element_count(std::span(x.dims()).subspan(axis + 1));
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = dy.data<T>().data();
      const T* const in = x.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      context.pool().parallel_for(x.size() / size, 64, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t line = begin; line < end; ++line) {
          const std::int64_t start = line / step * size * step + line % step;
          normalized_line(g + start, in + start, out + start, size, step, p == 1);
        }
      });
    });
  };
}

}  // namespace

OPERATORS(reduce_gradient) {
  const auto add = [&](const char* op, auto prepare, bool reads_x, bool reads_y) {
    registry.add(GradientDef{.name = op,
                             .prepare = prepare,
                             .reads_inputs = bits_of(1) | (reads_x ? bits_of(0) : 0),
                             .reads_outputs = reads_y ? bits_of(0) : 0});
  };
  add("ReduceSum", prepare_sum, false, false);
  add("ReduceMean", prepare_mean, false, false);
  add("ReduceMax", prepare_extreme, true, true);
  add("ReduceMin", prepare_extreme, true, true);
  add("ReduceProd", prepare_product, true, false);
  add("ReduceL1", prepare_l1, true, false);
  add("ReduceL2", prepare_l2, true, true);
  add("ReduceSumSquare", prepare_sum_square, true, false);
  add("ReduceLogSum", prepare_log_sum, false, true);
  add("ReduceLogSumExp", prepare_log_sum_exp, true, true);
  add("CumSum", prepare_cumulative_sum, false, false);
  add("LpNormalization", prepare_lp_norm, true, false);
}

}  // namespace onnxpress
