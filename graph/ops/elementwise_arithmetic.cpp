// Add, Sub, Mul, Div, Pow, Mod, PRelu, BitShift, Bitwise*; variadic Min, Max, Sum, Mean.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "graph/ops/arithmetic.h"
#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

template <class T>
constexpr bool is_real = std::is_floating_point_v<T>;
template <class T>
using Bits =
    std::conditional_t<is_real<T>, T, std::uint64_t>;  // wraps around instead of overflowing

struct Add {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(Bits<T>(a) + Bits<T>(b));
  }
};
struct Sub {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(Bits<T>(a) - Bits<T>(b));
  }
};
struct Mul {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(Bits<T>(a) * Bits<T>(b));
  }
};
struct Div {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (!is_real<T>) {
      require(b != 0, "integer division by zero");
      if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub::apply(T{0}, a);
    }
    return a / b;
  }
};
// Sign of the divisor for integers (Mod's fmod = 0), C's fmod for floats.
struct Mod {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_real<T>) {
      return std::fmod(a, b);
    } else {
      require(b != 0, "integer modulo by zero");
      if constexpr (std::is_signed_v<T>) {
        if (b == -1) return 0;
        const T rest = a % b;
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
      } else {
        return a % b;
      }
    }
  }
};
struct Fmod {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_real<T>) {
      return std::fmod(a, b);
    } else {
      require(b != 0, "integer modulo by zero");
      return std::is_signed_v<T> && b == static_cast<T>(-1) ? 0 : a % b;
    }
  }
};
struct Pow {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_real<T>) {
      return std::pow(a, b);
    } else {
      if (std::is_signed_v<T> && b < 0)
        return a == 1 ? 1 : a == static_cast<T>(-1) ? (b % 2 ? a : 1) : 0;
      T result = 1;
      for (T base = a; b != 0; b >>= 1, base = Mul::apply(base, base))
        if (b & 1) result = Mul::apply(result, base);
      return result;
    }
  }
};
struct Min {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_real<T>)
      if (std::isnan(a)) return a;
    return a < b ? a : b;  // b when it is NaN
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_real<T>)
      if (std::isnan(a)) return a;
    return a > b ? a : b;
  }
};
struct Slope {
  template <class T>
  static T apply(T x, T slope) {
    return x < 0 ? Mul::apply(x, slope) : x;
  }
};

struct ShiftLeft {
  template <class T>
  static T apply(T a, T b) {
    return b >= 0 && static_cast<std::uint64_t>(b) < 64
               ? static_cast<T>(static_cast<std::uint64_t>(a) << b)
               : 0;
  }
};
struct ShiftRight {
  template <class T>
  static T apply(T a, T b) {
    return b >= 0 && static_cast<std::uint64_t>(b) < 64
               ? static_cast<T>(static_cast<std::uint64_t>(a) >> b)
               : 0;
  }
};
struct BitAnd {
  template <class T>
  static T apply(T a, T b) {
    return a & b;
  }
};
struct BitOr {
  template <class T>
  static T apply(T a, T b) {
    return a | b;
  }
};
struct BitXor {
  template <class T>
  static T apply(T a, T b) {
    return a ^ b;
  }
};

template <class Op, class T>
void rows(ThreadPool& pool, const BroadcastPlan& plan, const T* first, const T* second, T* target) {
  const bool a_moves = plan.inner_stride(0) != 0;
  const bool b_moves = plan.inner_stride(1) != 0;
  plan.run(pool, [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
    const T* a = first + offsets[0];
    const T* b = second + offsets[1];
    T* out = target + start;
    if (a_moves && b_moves) {
      for (std::int64_t i = 0; i < count; ++i) out[i] = Op::apply(a[i], b[i]);
    } else if (a_moves) {
      for (std::int64_t i = 0; i < count; ++i) out[i] = Op::apply(a[i], *b);
    } else if (b_moves) {
      for (std::int64_t i = 0; i < count; ++i) out[i] = Op::apply(*a, b[i]);
    } else {
      for (std::int64_t i = 0; i < count; ++i) out[i] = Op::apply(*a, *b);
    }
  });
}

enum class Types { numbers, integers, floats };

template <Types types, class Fn>
void choose(DType type, Fn&& fn) {
  if constexpr (types == Types::numbers)
    dispatch_numbers(type, fn);
  else if constexpr (types == Types::floats)
    dispatch_floats(type, fn);
  else
    dispatch<std::int64_t, std::uint64_t>(type, fn);
}

void check_same_type(const Tensor& a, const Tensor& b) {
  require(a.dtype() == b.dtype(), "expected inputs of one element type, found {} and {}",
          name(a.dtype()), name(b.dtype()));
}

template <class Op, Types types>
void binary(KernelContext& context, const Node& node) {
  run_as(context, arithmetic_type, [&](KernelContext& inner) {
    const Tensor& a = inner.required_input(0);
    const Tensor& b = inner.required_input(1);
    check_same_type(a, b);
    const Dims operands[] = {a.dims(), legacy_broadcast_dims(node, a.rank(), b.dims())};
    const Dims dims = broadcast(operands[0], operands[1]);
    Tensor& out = inner.output(0, a.dtype(), dims);
    const BroadcastPlan plan(dims, operands);
    choose<types>(a.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      rows<Op>(inner.pool(), plan, a.data<T>().data(), b.data<T>().data(),
               out.mutable_data<T>().data());
    });
  });
}

template <class Op, Types types = Types::numbers>
Kernel prepare_binary(const PrepareContext& plan) {
  return [&node = plan.node()](KernelContext& context) { binary<Op, types>(context, node); };
}

Kernel prepare_mod(const PrepareContext& plan) {
  return get_bool(plan.node(), "fmod", false) ? prepare_binary<Fmod>(plan)
                                              : prepare_binary<Mod>(plan);
}

Kernel prepare_bit_shift(const PrepareContext& plan) {
  const std::string direction = get_string(plan.node(), "direction", "");
  require(direction == "LEFT" || direction == "RIGHT",
          "expected direction LEFT or RIGHT, found '{}'", direction);
  return direction == "LEFT" ? prepare_binary<ShiftLeft, Types::integers>(plan)
                             : prepare_binary<ShiftRight, Types::integers>(plan);
}

// PRelu before opset 7: a slope of [C] belongs to axis 1.
Kernel prepare_prelu(const PrepareContext& plan) {
  return [&node = plan.node()](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& slope = inner.required_input(1);
      check_same_type(x, slope);
      Dims operands[] = {x.dims(), slope.dims()};
      if (node.opset() < 7 && slope.rank() == 1 && x.rank() > 2)
        operands[1].resize(x.rank() - 1, 1);
      const Dims dims = broadcast(operands[0], operands[1]);
      require(dims == x.dims(), "slope {} does not broadcast to {}", to_string(slope.dims()),
              to_string(x.dims()));
      Tensor& out = inner.output(0, x.dtype(), dims);
      dispatch_numbers(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        rows<Slope>(inner.pool(), BroadcastPlan(dims, operands), x.data<T>().data(),
                    slope.data<T>().data(), out.mutable_data<T>().data());
      });
    });
  };
}

// The base's type is the result's; an exponent of another type makes it computed in double.
Kernel prepare_pow(const PrepareContext& plan) {
  return [&node = plan.node()](KernelContext& context) {
    const Tensor& base = context.required_input(0);
    const Tensor& exponent = context.required_input(1);
    if (base.dtype() == exponent.dtype()) return binary<Pow, Types::numbers>(context, node);
    const Tensor a = base.cast(DType::float64);
    const Tensor b = exponent.cast(DType::float64);
    const Dims operands[] = {a.dims(), b.dims()};
    const Dims dims = broadcast(operands[0], operands[1]);
    Tensor result = Tensor::uninitialized(DType::float64, dims);
    rows<Pow>(context.pool(), BroadcastPlan(dims, operands), a.data<double>().data(),
              b.data<double>().data(), result.mutable_data<double>().data());
    context.forward_output(0, result.cast(base.dtype()));
  };
}

template <class Op, bool mean = false>
Kernel prepare_variadic(const PrepareContext&) {
  return [](KernelContext& context) {
    run_as(context, arithmetic_type, [](KernelContext& inner) {
      Tensor total = inner.required_input(0);
      dispatch_numbers(total.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (std::size_t i = 1; i < inner.input_count(); ++i) {
          const Tensor& next = inner.required_input(i);
          check_same_type(total, next);
          const Dims operands[] = {total.dims(), next.dims()};
          const Dims dims = broadcast(operands[0], operands[1]);
          Tensor sum = Tensor::uninitialized(total.dtype(), dims);
          rows<Op>(inner.pool(), BroadcastPlan(dims, operands), total.data<T>().data(),
                   next.data<T>().data(), sum.mutable_data<T>().data());
          total = std::move(sum);
        }
        if (mean)
          for (T& element : total.mutable_data<T>()) element /= static_cast<T>(inner.input_count());
      });
      inner.forward_output(0, std::move(total));
    });
  };
}

Dim combine(std::string_view op, const Dim& a, const Dim& b) {
  const bool known = a.is_known() && b.is_known();
  std::int64_t result = -1;
  bool overflow = false;
  if (op == "Add") {
    if (known)
      overflow = __builtin_add_overflow(a.value(), b.value(), &result);
    else if (a.value() == 0)
      return b;
    else if (b.value() == 0)
      return a;
  } else if (op == "Sub") {
    if (known)
      result = a.value() - b.value();
    else if (b.value() == 0)
      return a;
  } else if (op == "Mul") {
    if (known)
      overflow = __builtin_mul_overflow(a.value(), b.value(), &result);
    else if (a.value() == 1)
      return b;
    else if (b.value() == 1)
      return a;
  } else if (op == "Div") {
    if (known && b.value() > 0)
      result = a.value() / b.value();
    else if (b.value() == 1)
      return a;
  }
  return result >= 0 && !overflow ? Dim(result) : Dim();
}

// Shape contents through a computation.
void infer_contents(InferContext& context) {
  const auto a = context.input_symbolic(0);
  const auto b = context.input_symbolic(1);
  if (!a || !b || a->empty() || b->empty()) return;
  if (a->size() != b->size() && a->size() != 1 && b->size() != 1) return;
  Shape contents(std::max(a->size(), b->size()));
  for (std::size_t i = 0; i < contents.size(); ++i)
    contents[i] = combine(context.node().op_type(), (*a)[a->size() == 1 ? 0 : i],
                          (*b)[b->size() == 1 ? 0 : i]);
  context.set_output_symbolic(0, std::move(contents));
}

void infer_binary(InferContext& context) {
  const Shape* a = context.input_shape(0);
  const Shape* b = context.input_shape(1);
  const Node& node = context.node();
  if (node.domain().empty() && node.opset() < 7 &&
      a != nullptr) {  // the result has the first's shape
    context.set_output(0, context.input_dtype(0), *a);
  } else {
    const DType first = context.input_dtype(0);
    const DType second = context.input_dtype(1);
    if (!node.is("Pow") && first != DType::undefined && second != DType::undefined)
      require(first == second, "expected inputs of one element type, found {} and {}", name(first),
              name(second));
    const bool both = a != nullptr && b != nullptr;
    const DType type = first == DType::undefined && !node.is("Pow") ? second : first;
    context.set_output(0, type, both ? std::optional(broadcast(*a, *b)) : std::nullopt);
  }
  infer_contents(context);
}

}  // namespace

OpCall make_arithmetic(std::int64_t opset, std::string op_type) {
  OpCall call{.op_type = std::move(op_type)};
  if (opset < 7) call.attributes["broadcast"] = 1;
  return call;
}

OPERATORS(elementwise_arithmetic) {
  const auto add = [&](const char* op, auto prepare, void (*infer)(InferContext&) = infer_binary,
                       std::int64_t since = 1) {
    registry.add(OpDef{
        .name = op, .since = since, .infer = infer, .prepare = prepare, .axes = broadcast_axes});
  };
  add("Add", prepare_binary<Add>);
  add("Sub", prepare_binary<Sub>);
  add("Mul", prepare_binary<Mul>);
  add("Div", prepare_binary<Div>);
  add("Pow", prepare_pow);
  add("Mod", prepare_mod, infer_binary, 10);
  add("PRelu", prepare_prelu, infer_same_as_first);
  add("BitShift", prepare_bit_shift, infer_binary, 11);
  add("BitwiseAnd", prepare_binary<BitAnd, Types::integers>, infer_binary, 18);
  add("BitwiseOr", prepare_binary<BitOr, Types::integers>, infer_binary, 18);
  add("BitwiseXor", prepare_binary<BitXor, Types::integers>, infer_binary, 18);
  add("Min", prepare_variadic<Min>, infer_broadcast);
  add("Max", prepare_variadic<Max>, infer_broadcast);
  add("Sum", prepare_variadic<Add>, infer_broadcast);
  add("Mean", prepare_variadic<Add, true>, infer_broadcast);
}

}  // namespace onnxpress
