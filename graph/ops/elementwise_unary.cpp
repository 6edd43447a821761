// Functions of one element: activations, roundings, exponentials, trigonometry.
#include <cmath>
#include <numbers>
#include <type_traits>

#include "graph/ops/activations.h"
#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

// Each functor is made from the node (its attributes) and maps one element; formulas are those of
// the ONNX operator specifications.
template <class Fn>
struct Plain {
  explicit Plain(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return Fn::apply(x);
  }
};

struct ReluFn {
  template <class T>
  static T apply(T x) {
    return x < 0 ? T(0) : x;
  }
};
struct AbsFn {
  template <class T>
  static T apply(T x) {
    if constexpr (std::is_floating_point_v<T>)
      return std::fabs(x);
    else
      return x < 0 ? static_cast<T>(0 - static_cast<std::uint64_t>(x)) : x;
  }
};
struct NegFn {
  template <class T>
  static T apply(T x) {
    if constexpr (std::is_floating_point_v<T>)
      return -x;
    else
      return static_cast<T>(0 - static_cast<std::uint64_t>(x));
  }
};
struct SignFn {
  template <class T>
  static T apply(T x) {
    return x > 0 ? T(1) : x < 0 ? static_cast<T>(-1) : x;
  }
};
struct SigmoidFn {
  template <class T>
  static T apply(T x) {
    if (x >= 0) return 1 / (1 + std::exp(-x));
    const T e = std::exp(x);
    return e / (1 + e);
  }
};
struct SoftplusFn {
  template <class T>
  static T apply(T x) {
    return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  }
};
struct HardSwishFn {
  template <class T>
  static T apply(T x) {
    return x * std::fmax(T(0), std::fmin(T(1), x / 6 + T(0.5)));
  }
};
struct MishFn {
  template <class T>
  static T apply(T x) {
    return x * std::tanh(SoftplusFn::apply(x));
  }
};
struct ReciprocalFn {
  template <class T>
  static T apply(T x) {
    return 1 / x;
  }
};
struct SoftsignFn {
  template <class T>
  static T apply(T x) {
    return x / (1 + std::fabs(x));
  }
};

#define ONNXPRESS_MATH(Name, function) \
  struct Name {                        \
    template <class T>                 \
    static T apply(T x) {              \
      return std::function(x);         \
    }                                  \
  };
ONNXPRESS_MATH(TanhFn, tanh)
ONNXPRESS_MATH(ErfFn, erf)
ONNXPRESS_MATH(ExpFn, exp)
ONNXPRESS_MATH(LogFn, log)
ONNXPRESS_MATH(SqrtFn, sqrt)
ONNXPRESS_MATH(FloorFn, floor)
ONNXPRESS_MATH(CeilFn, ceil)
ONNXPRESS_MATH(RoundFn, nearbyint)  // halves to even, the default rounding mode
ONNXPRESS_MATH(SinFn, sin)
ONNXPRESS_MATH(CosFn, cos)
ONNXPRESS_MATH(TanFn, tan)
ONNXPRESS_MATH(AsinFn, asin)
ONNXPRESS_MATH(AcosFn, acos)
ONNXPRESS_MATH(AtanFn, atan)
ONNXPRESS_MATH(SinhFn, sinh)
ONNXPRESS_MATH(CoshFn, cosh)
ONNXPRESS_MATH(AsinhFn, asinh)
ONNXPRESS_MATH(AcoshFn, acosh)
ONNXPRESS_MATH(AtanhFn, atanh)
#undef ONNXPRESS_MATH

struct LeakyRelu {
  float alpha;
  explicit LeakyRelu(const Node& node) : alpha(LeakyReluAttrs::from(node).alpha) {}
  template <class T>
  T operator()(T x) const {
    return x < 0 ? static_cast<T>(alpha) * x : x;
  }
};
struct Elu {
  float alpha;
  explicit Elu(const Node& node) : alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x) const {
    return x < 0 ? static_cast<T>(alpha) * std::expm1(x) : x;
  }
};
struct Celu {
  float alpha;
  explicit Celu(const Node& node) : alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x) const {
    const T a = static_cast<T>(alpha);
    return std::fmax(T(0), x) + std::fmin(T(0), a * std::expm1(x / a));
  }
};
struct Selu {
  SeluAttrs attrs;
  explicit Selu(const Node& node) : attrs(SeluAttrs::from(node)) {}
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(attrs.gamma) *
           (x > 0 ? x : static_cast<T>(attrs.alpha) * std::expm1(x));
  }
};
struct HardSigmoid {
  float alpha, beta;
  explicit HardSigmoid(const Node& node)
      : alpha(HardSigmoidAttrs::from(node).alpha), beta(HardSigmoidAttrs::from(node).beta) {}
  template <class T>
  T operator()(T x) const {
    const T y = static_cast<T>(alpha) * x + static_cast<T>(beta);
    return y < T(0) ? T(0) : y > T(1) ? T(1) : y;  // NaN stays NaN
  }
};
struct ThresholdedRelu {
  float alpha;
  explicit ThresholdedRelu(const Node& node) : alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x) const {
    return x > static_cast<T>(alpha) ? x : T(0);
  }
};
struct Shrink {
  float bias, lambda;
  explicit Shrink(const Node& node)
      : bias(get_float(node, "bias", 0.0f)), lambda(get_float(node, "lambd", 0.5f)) {}
  template <class T>
  T operator()(T x) const {
    if (x < -static_cast<T>(lambda)) return x + static_cast<T>(bias);
    return x > static_cast<T>(lambda) ? x - static_cast<T>(bias) : T(0);
  }
};
// x * sigmoid(alpha x), opset 24.
struct Swish {
  float alpha;
  explicit Swish(const Node& node) : alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x) const {
    return x * SigmoidFn::apply(static_cast<T>(alpha) * x);
  }
};
struct Gelu {
  bool tanh;
  explicit Gelu(const Node& node) : tanh(is_tanh_gelu(node)) {}
  template <class T>
  T operator()(T x) const {
    if (!tanh) return T(0.5) * x * (1 + std::erf(x * T(std::numbers::sqrt2 / 2)));
    const T factor = T(std::numbers::inv_sqrtpi * std::numbers::sqrt2);  // sqrt(2 / pi)
    return T(0.5) * x * (1 + std::tanh(factor * (x + T(0.044715) * x * x * x)));
  }
};

template <class Fn, bool integers>
Kernel prepare_unary(const PrepareContext& plan) {
  return [fn = Fn(plan.node())](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      const auto run = [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(x.size(), 16384, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) out[i] = fn(in[i]);
        });
      };
      if constexpr (integers)
        dispatch_numbers(x.dtype(), run);
      else
        dispatch_floats(x.dtype(), run);
    });
  };
}

}  // namespace

HardSigmoidAttrs HardSigmoidAttrs::from(const Node& node) {
  return {.alpha = get_float(node, "alpha", 0.2f), .beta = get_float(node, "beta", 0.5f)};
}

Attributes HardSigmoidAttrs::to_attributes() const {
  Attributes attributes;
  attributes["alpha"] = alpha;
  attributes["beta"] = beta;
  return attributes;
}

LeakyReluAttrs LeakyReluAttrs::from(const Node& node) {
  return {.alpha = get_float(node, "alpha", 0.01f)};
}

Attributes LeakyReluAttrs::to_attributes() const {
  Attributes attributes;
  attributes["alpha"] = alpha;
  return attributes;
}

// Before opset 6 the defaults had four digits.
SeluAttrs SeluAttrs::from(const Node& node) {
  const bool is_old = node.opset() < 6;
  return {.alpha = get_float(node, "alpha", is_old ? 1.6732f : 1.67326319217681884765625f),
          .gamma = get_float(node, "gamma", is_old ? 1.0507f : 1.05070102214813232421875f)};
}

Attributes swish_attributes(float alpha) {
  Attributes attributes;
  attributes["alpha"] = alpha;
  return attributes;
}

Attributes gelu_attributes(bool by_tanh) {
  Attributes attributes;
  if (by_tanh) attributes["approximate"] = "tanh";
  return attributes;
}

bool is_tanh_gelu(const Node& node) {
  const std::string form = get_string(node, "approximate", "none");
  require(form == "none" || form == "tanh", "expected approximate none or tanh, found '{}'", form);
  return form == "tanh";
}

OPERATORS(elementwise_unary) {
  const auto add = [&](const char* op, auto prepare, std::int64_t since = 1) {
    registry.add(OpDef{.name = op,
                       .since = since,
                       .infer = infer_same_as_first,
                       .prepare = prepare,
                       .axes = broadcast_axes});
  };
  add("Relu", prepare_unary<Plain<ReluFn>, true>);
  add("Abs", prepare_unary<Plain<AbsFn>, true>);
  add("Neg", prepare_unary<Plain<NegFn>, true>);
  add("Sign", prepare_unary<Plain<SignFn>, true>, 9);
  add("Sigmoid", prepare_unary<Plain<SigmoidFn>, false>);
  add("Softplus", prepare_unary<Plain<SoftplusFn>, false>);
  add("Softsign", prepare_unary<Plain<SoftsignFn>, false>);
  add("HardSwish", prepare_unary<Plain<HardSwishFn>, false>, 14);
  add("Mish", prepare_unary<Plain<MishFn>, false>, 18);
  add("Reciprocal", prepare_unary<Plain<ReciprocalFn>, false>);
  add("Tanh", prepare_unary<Plain<TanhFn>, false>);
  add("Erf", prepare_unary<Plain<ErfFn>, false>, 9);
  add("Exp", prepare_unary<Plain<ExpFn>, false>);
  add("Log", prepare_unary<Plain<LogFn>, false>);
  add("Sqrt", prepare_unary<Plain<SqrtFn>, false>);
  add("Floor", prepare_unary<Plain<FloorFn>, false>);
  add("Ceil", prepare_unary<Plain<CeilFn>, false>);
  add("Round", prepare_unary<Plain<RoundFn>, false>, 11);
  add("Sin", prepare_unary<Plain<SinFn>, false>, 7);
  add("Cos", prepare_unary<Plain<CosFn>, false>, 7);
  add("Tan", prepare_unary<Plain<TanFn>, false>, 7);
  add("Asin", prepare_unary<Plain<AsinFn>, false>, 7);
  add("Acos", prepare_unary<Plain<AcosFn>, false>, 7);
  add("Atan", prepare_unary<Plain<AtanFn>, false>, 7);
  add("Sinh", prepare_unary<Plain<SinhFn>, false>, 9);
  add("Cosh", prepare_unary<Plain<CoshFn>, false>, 9);
  add("Asinh", prepare_unary<Plain<AsinhFn>, false>, 9);
  add("Acosh", prepare_unary<Plain<AcoshFn>, false>, 9);
  add("Atanh", prepare_unary<Plain<AtanhFn>, false>, 9);
  add("LeakyRelu", prepare_unary<LeakyRelu, false>);
  add("Elu", prepare_unary<Elu, false>);
  add("Celu", prepare_unary<Celu, false>, 12);
  add("Selu", prepare_unary<Selu, false>);
  add("HardSigmoid", prepare_unary<HardSigmoid, false>);
  add("ThresholdedRelu", prepare_unary<ThresholdedRelu, false>, 10);
  add("Shrink", prepare_unary<Shrink, false>, 9);
  add("Swish", prepare_unary<Swish, false>, 24);
  add("Gelu", prepare_unary<Gelu, false>, 20);
}

}  // namespace onnxpress
