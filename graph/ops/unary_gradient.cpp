// Derivatives of functions of one element.
#include <cmath>
#include <numbers>

#include "graph/ops/activations.h"
#include "graph/ops/attributes.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

// Each functor is made from the node (its attributes) and gives dy/dx from x and y, of which it
// reads what it says.
struct OfX {
  static constexpr bool reads_x = true, reads_y = false;
  explicit OfX(const Node&) {}
};
struct OfY {
  static constexpr bool reads_x = false, reads_y = true;
  explicit OfY(const Node&) {}
};

template <class T>
T sigmoid(T x) {
  if (x >= 0) return 1 / (1 + std::exp(-x));
  const T e = std::exp(x);
  return e / (1 + e);
}

#define ONNXPRESS_DERIVATIVE(Name, Base, formula) \
  struct Name : Base {                            \
    using Base::Base;                             \
    template <class T>                            \
    T operator()([[maybe_unused]] T x, [[maybe_unused]] T y) const { \
      return formula;                             \
    }                                             \
  };
ONNXPRESS_DERIVATIVE(Relu, OfY, y > 0 ? T(1) : T(0))
ONNXPRESS_DERIVATIVE(Abs, OfX, x > 0 ? T(1) : x < 0 ? T(-1) : T(0))
ONNXPRESS_DERIVATIVE(Sigmoid, OfY, y * (1 - y))
ONNXPRESS_DERIVATIVE(Tanh, OfY, 1 - y * y)
ONNXPRESS_DERIVATIVE(Softplus, OfX, sigmoid(x))
ONNXPRESS_DERIVATIVE(Softsign, OfX, 1 / ((1 + std::fabs(x)) * (1 + std::fabs(x))))
ONNXPRESS_DERIVATIVE(HardSwish, OfX, x <= -3 ? T(0) : x >= 3 ? T(1) : x / 3 + T(0.5))
ONNXPRESS_DERIVATIVE(Reciprocal, OfY, -y * y)
ONNXPRESS_DERIVATIVE(Erf, OfX, T(2 * std::numbers::inv_sqrtpi) * std::exp(-x * x))
ONNXPRESS_DERIVATIVE(Exp, OfY, y)
ONNXPRESS_DERIVATIVE(Log, OfX, 1 / x)
ONNXPRESS_DERIVATIVE(Sqrt, OfY, T(0.5) / y)
ONNXPRESS_DERIVATIVE(Sin, OfX, std::cos(x))
ONNXPRESS_DERIVATIVE(Cos, OfX, -std::sin(x))
ONNXPRESS_DERIVATIVE(Tan, OfY, 1 + y * y)
ONNXPRESS_DERIVATIVE(Asin, OfX, 1 / std::sqrt(1 - x * x))
ONNXPRESS_DERIVATIVE(Acos, OfX, -1 / std::sqrt(1 - x * x))
ONNXPRESS_DERIVATIVE(Atan, OfX, 1 / (1 + x * x))
ONNXPRESS_DERIVATIVE(Sinh, OfX, std::cosh(x))
ONNXPRESS_DERIVATIVE(Cosh, OfX, std::sinh(x))
ONNXPRESS_DERIVATIVE(Asinh, OfX, 1 / std::sqrt(x * x + 1))
ONNXPRESS_DERIVATIVE(Acosh, OfX, 1 / std::sqrt(x * x - 1))
ONNXPRESS_DERIVATIVE(Atanh, OfX, 1 / (1 - x * x))
#undef ONNXPRESS_DERIVATIVE

struct Mish : OfX {
  using OfX::OfX;
  template <class T>
  T operator()(T x, T) const {
    const T softplus = x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
    const T t = std::tanh(softplus);
    return t + x * (1 - t * t) * sigmoid(x);
  }
};
struct LeakyRelu : OfX {
  float alpha;
  explicit LeakyRelu(const Node& node) : OfX(node), alpha(LeakyReluAttrs::from(node).alpha) {}
  template <class T>
  T operator()(T x, T) const {
    return x < 0 ? static_cast<T>(alpha) : T(1);
  }
};
struct Elu : OfX {
  float alpha;
  explicit Elu(const Node& node) : OfX(node), alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x, T) const {
    return x < 0 ? static_cast<T>(alpha) * std::exp(x) : T(1);
  }
};
struct Celu : OfX {
  float alpha;
  explicit Celu(const Node& node) : OfX(node), alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x, T) const {
    return x < 0 ? std::exp(x / static_cast<T>(alpha)) : T(1);
  }
};
struct Selu : OfX {
  SeluAttrs attrs;
  explicit Selu(const Node& node) : OfX(node), attrs(SeluAttrs::from(node)) {}
  template <class T>
  T operator()(T x, T) const {
    return static_cast<T>(attrs.gamma) * (x > 0 ? T(1) : static_cast<T>(attrs.alpha) * std::exp(x));
  }
};
struct HardSigmoid : OfY {
  float alpha;
  explicit HardSigmoid(const Node& node) : OfY(node), alpha(HardSigmoidAttrs::from(node).alpha) {}
  template <class T>
  T operator()(T, T y) const {
    return y > 0 && y < 1 ? static_cast<T>(alpha) : T(0);
  }
};
struct ThresholdedRelu : OfX {
  float alpha;
  explicit ThresholdedRelu(const Node& node) : OfX(node), alpha(get_float(node, "alpha", 1.0f)) {}
  template <class T>
  T operator()(T x, T) const {
    return x > static_cast<T>(alpha) ? T(1) : T(0);
  }
};
struct Shrink : OfX {
  float lambda;
  explicit Shrink(const Node& node) : OfX(node), lambda(get_float(node, "lambd", 0.5f)) {}
  template <class T>
  T operator()(T x, T) const {
    return std::fabs(x) > static_cast<T>(lambda) ? T(1) : T(0);
  }
};
struct Swish : OfX {
  float alpha;
  explicit Swish(const Node& node)
      : OfX(node), alpha(get_float(node, "alpha", node.is("QuickGelu", "com.microsoft") ? 1.702f : 1.0f)) {}
  template <class T>
  T operator()(T x, T) const {
    const T a = static_cast<T>(alpha);
    const T s = sigmoid(a * x);
    return s * (1 + a * x * (1 - s));
  }
};

template <class T>
T gelu_derivative(T x, bool tanh) {
  if (!tanh) {
    // Phi(x) + x phi(x) of the normal distribution.
    const T density =
        T(std::numbers::inv_sqrtpi / std::numbers::sqrt2) * std::exp(T(-0.5) * x * x);
    return T(0.5) * (1 + std::erf(x * T(std::numbers::sqrt2 / 2))) + x * density;
  }
  const T factor = T(std::numbers::inv_sqrtpi * std::numbers::sqrt2);  // sqrt(2 / pi)
  const T t = std::tanh(factor * (x + T(0.044715) * x * x * x));
  return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * factor * (1 + T(3 * 0.044715) * x * x);
}

struct Gelu : OfX {
  bool tanh;
  explicit Gelu(const Node& node) : OfX(node), tanh(node.domain().empty() && is_tanh_gelu(node)) {}
  template <class T>
  T operator()(T x, T) const {
    return gelu_derivative(x, tanh);
  }
};

template <class Fn>
BackwardKernel prepare_unary(const PrepareContext& plan) {
  return [fn = Fn(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = dy.data<T>().data();
      const T* const x = Fn::reads_x ? context.required_input(0).data<T>().data() : g;
      const T* const y = Fn::reads_y ? context.required_output(0).data<T>().data() : g;
      T* const out = dx.mutable_data<T>().data();
      for_elements(context.pool(), dy.size(), [=](std::int64_t i) { out[i] = g[i] * fn(x[i], y[i]); });
    });
  };
}

BackwardKernel prepare_negated(const PrepareContext&) {
  return [](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = dy.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      for_elements(context.pool(), dy.size(), [=](std::int64_t i) { out[i] = -g[i]; });
    });
  };
}

BackwardKernel prepare_zero(const PrepareContext&) {
  return [](BackwardContext& context) { put_zeros(context, 0); };
}

}  // namespace

OPERATORS(unary_gradient) {
  const auto add = [&]<class Fn>(std::type_identity<Fn>, const char* op, const char* domain = "") {
    registry.add(GradientDef{.name = op,
                             .domain = domain,
                             .prepare = prepare_unary<Fn>,
                             .reads_inputs = Fn::reads_x ? bits_of(0) : 0,
                             .reads_outputs = Fn::reads_y ? bits_of(0) : 0});
  };
  add(std::type_identity<Relu>(), "Relu");
  add(std::type_identity<Abs>(), "Abs");
  add(std::type_identity<Sigmoid>(), "Sigmoid");
  add(std::type_identity<Tanh>(), "Tanh");
  add(std::type_identity<Softplus>(), "Softplus");
  add(std::type_identity<Softsign>(), "Softsign");
  add(std::type_identity<HardSwish>(), "HardSwish");
  add(std::type_identity<Reciprocal>(), "Reciprocal");
  add(std::type_identity<Erf>(), "Erf");
  add(std::type_identity<Exp>(), "Exp");
  add(std::type_identity<Log>(), "Log");
  add(std::type_identity<Sqrt>(), "Sqrt");
  add(std::type_identity<Sin>(), "Sin");
  add(std::type_identity<Cos>(), "Cos");
  add(std::type_identity<Tan>(), "Tan");
  add(std::type_identity<Asin>(), "Asin");
  add(std::type_identity<Acos>(), "Acos");
  add(std::type_identity<Atan>(), "Atan");
  add(std::type_identity<Sinh>(), "Sinh");
  add(std::type_identity<Cosh>(), "Cosh");
  add(std::type_identity<Asinh>(), "Asinh");
  add(std::type_identity<Acosh>(), "Acosh");
  add(std::type_identity<Atanh>(), "Atanh");
  add(std::type_identity<Mish>(), "Mish");
  add(std::type_identity<LeakyRelu>(), "LeakyRelu");
  add(std::type_identity<Elu>(), "Elu");
  add(std::type_identity<Celu>(), "Celu");
  add(std::type_identity<Selu>(), "Selu");
  add(std::type_identity<HardSigmoid>(), "HardSigmoid");
  add(std::type_identity<ThresholdedRelu>(), "ThresholdedRelu");
  add(std::type_identity<Shrink>(), "Shrink");
  add(std::type_identity<Swish>(), "Swish");
  add(std::type_identity<Gelu>(), "Gelu");
  add(std::type_identity<Swish>(), "QuickGelu", "com.microsoft");
  add(std::type_identity<Gelu>(), "Gelu", "com.microsoft");
  registry.add(GradientDef{
      .name = "Neg", .prepare = prepare_negated, .reads_inputs = 0, .reads_outputs = 0});
  for (const char* op : {"Sign", "Floor", "Ceil", "Round"})
    registry.add(
        GradientDef{.name = op, .prepare = prepare_zero, .reads_inputs = 0, .reads_outputs = 0});
}

}  // namespace onnxpress
