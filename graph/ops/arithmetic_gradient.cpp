// Gradients of Add, Sub, Mul, Div, Pow, Mod, PRelu, Clip, Where, Min, Max, Sum and Mean.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "graph/ops/attributes.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

// Of the gradient's dims: fn(g, a, b).
template <class Fn>
Tensor mapped(ThreadPool& pool, const Tensor& gradient, const BroadcastOperand& a,
              const BroadcastOperand& b, Fn fn) {
  return combined(pool, gradient.dims(), gradient, a, b, fn);
}

// The gradient with every element scaled.
Tensor scaled(ThreadPool& pool, const Tensor& gradient, double factor) {
  Tensor result = Tensor::uninitialized(gradient.dtype(), gradient.dims());
  dispatch_floats(gradient.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const g = gradient.data<T>().data();
    T* const out = result.mutable_data<T>().data();
    const T by = static_cast<T>(factor);
    for_elements(pool, gradient.size(), [=](std::int64_t i) { out[i] = g[i] * by; });
  });
  return result;
}

// Dims of operand 1, as the operator aligns them.
Dims second_dims(const Node& node, const BackwardContext& context) {
  return legacy_broadcast_dims(node, context.input_dims(0).size(), context.input_dims(1));
}

template <int sign>
BackwardKernel prepare_sum_of_two(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    if (context.wants_gradient(0)) put_sum(context, 0, dy);
    if (!context.wants_gradient(1)) return;
    const Dims dims = second_dims(node, context);
    const Tensor sum = sum_to(context.pool(), dy, dims);
    put_sum(context, 1, sign > 0 ? sum : scaled(context.pool(), sum, -1), dims);
  };
}

BackwardKernel prepare_product(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Dims second = second_dims(node, context);
    const auto times = [](auto g, auto other, auto) { return g * other; };
    if (context.wants_gradient(0)) {
      const Tensor& b = context.required_input(1);
      put_sum(context, 0, mapped(context.pool(), dy, {b, second}, {b, second}, times));
    }
    if (context.wants_gradient(1)) {
      const Tensor& a = context.required_input(0);
      put_sum(context, 1, mapped(context.pool(), dy, a, a, times), second);
    }
  };
}

BackwardKernel prepare_quotient(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Dims second = second_dims(node, context);
    const Tensor& b = context.required_input(1);
    if (context.wants_gradient(0))
      put_sum(context, 0, mapped(context.pool(), dy, {b, second}, {b, second},
                                 [](auto g, auto divisor, auto) { return g / divisor; }));
    if (!context.wants_gradient(1)) return;
    const Tensor& a = context.required_input(0);
    const auto of_divisor = [](auto g, auto dividend, auto divisor) {
      return -g * dividend / (divisor * divisor);
    };
    put_sum(context, 1, mapped(context.pool(), dy, a, {b, second}, of_divisor), second);
  };
}

BackwardKernel prepare_power(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Dims second = second_dims(node, context);
    const Tensor& a = context.required_input(0);
    const Tensor b = context.required_input(1).cast(a.dtype());
    if (context.wants_gradient(0))
      put_sum(context, 0, mapped(context.pool(), dy, a, {b, second},
                                 [](auto g, auto base, auto exponent) {
                                   using T = decltype(g);
                                   if (exponent == 0) return T(0);
                                   if (exponent == 2) return g * 2 * base;
                                   return g * exponent * std::pow(base, exponent - 1);
                                 }));
    if (!context.wants_gradient(1)) return;
    const Tensor of_exponent = mapped(context.pool(), dy, a, {b, second},
                                      [](auto g, auto base, auto exponent) {
                                        using T = decltype(g);
                                        if (base == 0 && exponent >= 0) return T(0);
                                        return g * std::pow(base, exponent) * std::log(base);
                                      });
    const Tensor sum = sum_to(context.pool(), of_exponent, second);
    put_sum(context, 1, sum.cast(context.input_dtype(1)), second);
  };
}

// Float Mod (fmod): x - divisor * trunc(x / divisor), the quotient being constant between steps.
BackwardKernel prepare_remainder(const PrepareContext&) {
  return [](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    if (context.wants_gradient(0)) put_sum(context, 0, dy);
    if (!context.wants_gradient(1)) return;
    const Tensor& a = context.required_input(0);
    const Tensor& b = context.required_input(1);
    put_sum(context, 1,
            mapped(context.pool(), dy, a, b, [](auto g, auto x, auto divisor) {
              return -g * std::trunc(x / divisor);
            }));
  };
}

BackwardKernel prepare_prelu(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const Tensor& slope = context.required_input(1);
    Dims dims = slope.dims();
    if (node.opset() < 7 && slope.rank() == 1 && x.rank() > 2) dims.resize(x.rank() - 1, 1);
    if (context.wants_gradient(0))
      put_sum(context, 0, mapped(context.pool(), dy, x, {slope, dims},
                                 [](auto g, auto value, auto by) { return value < 0 ? g * by : g; }));
    if (context.wants_gradient(1))
      put_sum(context, 1, mapped(context.pool(), dy, x, {slope, dims},
                                 [](auto g, auto value, auto) {
                                   return value < 0 ? g * value : decltype(g)(0);
                                 }),
              dims);
  };
}

// Values inside the bounds (and on them) hand the gradient on; those outside hand it to the bound.
BackwardKernel prepare_clip(const PrepareContext& plan) {
  return [low = find_float(plan.node(), "min"),
          high = find_float(plan.node(), "max")](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      constexpr T infinity = std::numeric_limits<T>::infinity();
      const auto bound = [&](std::size_t index, const std::optional<float>& attribute, T otherwise) {
        if (const Tensor* tensor = context.input(index)) return tensor->data<T>()[0];
        return attribute ? static_cast<T>(*attribute) : otherwise;
      };
      const T least = bound(1, low, -infinity), most = bound(2, high, infinity);
      const T* const g = dy.data<T>().data();
      const T* const in = x.data<T>().data();
      if (context.wants_gradient(0)) {
        T* const out = context.gradient(0).mutable_data<T>().data();
        for_elements(context.pool(), dy.size(), [=](std::int64_t i) {
          out[i] = in[i] >= least && in[i] <= most ? g[i] : T(0);
        });
      }
      if (!context.wants_gradient(1) && !context.wants_gradient(2)) return;
      double below = 0, above = 0;
      for (std::int64_t i = 0; i < dy.size(); ++i)
        if (in[i] > most || (least > most && in[i] >= least))
          above += static_cast<double>(g[i]);
        else if (in[i] < least)
          (least > most ? above : below) += static_cast<double>(g[i]);
      if (context.wants_gradient(1)) context.gradient(1).mutable_data<T>()[0] = static_cast<T>(below);
      if (context.wants_gradient(2)) context.gradient(2).mutable_data<T>()[0] = static_cast<T>(above);
    });
  };
}

// The elements of `gradient` where the condition holds (or does not), zeros elsewhere.
Tensor chosen(ThreadPool& pool, const Tensor& gradient, const Tensor& condition, bool holds) {
  Tensor result = Tensor::uninitialized(gradient.dtype(), gradient.dims());
  const Dims operands[] = {condition.dims()};
  const BroadcastPlan plan(gradient.dims(), operands);
  dispatch_floats(gradient.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const g = gradient.data<T>().data();
    const bool* const c = condition.data<bool>().data();
    T* const out = result.mutable_data<T>().data();
    const std::int64_t step = plan.inner_stride(0);
    plan.run(pool, [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i)
        out[start + i] = c[offsets[0] + i * step] == holds ? g[start + i] : T(0);
    });
  });
  return result;
}

BackwardKernel prepare_where(const PrepareContext&) {
  return [](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& condition = context.required_input(0);
    for (const std::size_t index : {std::size_t{1}, std::size_t{2}})
      if (context.wants_gradient(index))
        put_sum(context, index, chosen(context.pool(), dy, condition, index == 1));
  };
}

// Equal extremes share the gradient.
BackwardKernel prepare_extreme(const PrepareContext&) {
  return [](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& y = context.required_output(0);
    const auto is_extreme = [](auto g, auto value, auto extreme) {
      return value == extreme ? g : decltype(g)(0);
    };
    Tensor ones = Tensor::uninitialized(dy.dtype(), dy.dims());
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      std::ranges::fill(ones.mutable_data<T>(), T(1));
    });
    Tensor holders(dy.dtype(), dy.dims());
    const auto add = [](auto g, auto a, auto b) { return g * 0 + a + b; };
    for (std::size_t i = 0; i < context.input_count(); ++i) {
      const Tensor& x = context.required_input(i);
      const Tensor one = mapped(context.pool(), ones, x, y, is_extreme);
      holders = mapped(context.pool(), ones, holders, one, add);
    }
    const Tensor share = mapped(context.pool(), dy, holders, holders,
                                [](auto g, auto count, auto) { return count > 0 ? g / count : g; });
    for (std::size_t i = 0; i < context.input_count(); ++i) {
      if (!context.wants_gradient(i)) continue;
      const Tensor& x = context.required_input(i);
      put_sum(context, i, mapped(context.pool(), share, x, y, is_extreme));
    }
  };
}

template <bool is_mean>
BackwardKernel prepare_total(const PrepareContext&) {
  return [](BackwardContext& context) {
    Tensor dy = context.required_gradient(0);
    if (is_mean) dy = scaled(context.pool(), dy, 1.0 / static_cast<double>(context.input_count()));
    for (std::size_t i = 0; i < context.input_count(); ++i)
      if (context.wants_gradient(i)) put_sum(context, i, dy);
  };
}

}  // namespace

OPERATORS(arithmetic_gradient) {
  const auto add = [&](const char* op, auto prepare, std::uint64_t inputs, std::uint64_t outputs = 0) {
    registry.add(GradientDef{
        .name = op, .prepare = prepare, .reads_inputs = inputs, .reads_outputs = outputs});
  };
  add("Add", prepare_sum_of_two<1>, 0);
  add("Sub", prepare_sum_of_two<-1>, 0);
  registry.add(GradientDef{.name = "Mul",
                           .prepare = prepare_product,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
  registry.add(GradientDef{.name = "Div",
                           .prepare = prepare_quotient,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = [](std::uint64_t wanted) {
                             return (wanted & bits_of(1)) != 0 ? bits_of(0, 1) : bits_of(1);
                           }});
  add("Pow", prepare_power, bits_of(0, 1));
  add("Mod", prepare_remainder, bits_of(0, 1));
  add("PRelu", prepare_prelu, bits_of(0, 1));
  add("Clip", prepare_clip, bits_of(0, 1, 2));
  add("Where", prepare_where, bits_of(0));
  add("Min", prepare_extreme, all_values, bits_of(0));
  add("Max", prepare_extreme, all_values, bits_of(0));
  add("Sum", prepare_total<false>, 0);
  add("Mean", prepare_total<true>, 0);
}

}  // namespace onnxpress
