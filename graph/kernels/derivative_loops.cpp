#include "graph/kernels/derivative_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/derivative_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;

// out = fn(value, dy) on whole vectors, the rest through padded copies.
template <class Fn>
HWY_INLINE void for_vectors(const float* values, const float* dy, float* dx, std::int64_t count,
                            const Fn& fn) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(fn(hn::LoadU(d, values + i), hn::LoadU(d, dy + i)), d, dx + i);
  if (i == count) return;
  HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)] = {};
  HWY_ALIGN float more[HWY_MAX_BYTES / sizeof(float)] = {};
  for (std::int64_t k = i; k < count; ++k) {
    rest[k - i] = values[k];
    more[k - i] = dy[k];
  }
  hn::Store(fn(hn::Load(d, rest), hn::Load(d, more)), d, rest);
  for (std::int64_t k = i; k < count; ++k) dx[k] = rest[k - i];
}

HWY_INLINE Vector set(float value) { return hn::Set(Lanes(), value); }

// d gelu / dx = Phi(x) + x phi(x) of the normal distribution.
HWY_INLINE Vector gelu_slope(Vector x) {
  const Lanes d;
  const auto erf = vector_erf(d, hn::Mul(x, set(0.70710678f)));
  const auto density =
      hn::Mul(set(0.39894228f), vector_exp(d, hn::Mul(hn::Mul(x, x), set(-0.5f))));
  return hn::MulAdd(x, density, hn::Mul(set(0.5f), hn::Add(set(1), erf)));
}

HWY_INLINE Vector gelu_tanh_slope(Vector x) {
  const Lanes d;
  const auto one = set(1), half = set(0.5f), factor = set(0.79788456f);
  const auto square = hn::Mul(x, x);
  const auto t = vector_tanh(
      d, hn::Mul(factor, hn::MulAdd(hn::Mul(square, x), set(0.044715f), x)));
  const auto inner = hn::Mul(factor, hn::MulAdd(square, set(0.134145f), one));
  const auto slope = hn::Mul(hn::NegMulAdd(t, t, one), inner);
  return hn::Mul(half, hn::MulAdd(x, slope, hn::Add(one, t)));
}

HWY_INLINE Vector swish_slope(Vector x, Vector alpha) {
  const Lanes d;
  const auto ax = hn::Mul(x, alpha);
  const auto s = vector_sigmoid(d, ax);
  return hn::Mul(s, hn::MulAdd(ax, hn::Sub(set(1), s), set(1)));
}

HWY_INLINE Vector mish_slope(Vector x) {
  const Lanes d;
  const auto rest = hn::Log1p(d, vector_exp(d, hn::Neg(hn::Abs(x))));
  const auto t = vector_tanh(d, hn::Add(hn::Max(x, hn::Zero(d)), rest));
  const auto slope = hn::Mul(hn::NegMulAdd(t, t, set(1)), vector_sigmoid(d, x));
  return keep_nan(d, x, hn::MulAdd(x, slope, t));
}

void derivative(const PostOp& function, const float* values, const float* dy, float* dx,
                std::int64_t count) {
  using Kind = PostOp::Kind;
  const Lanes d;
  const Vector zero = hn::Zero(d), one = set(1), half = set(0.5f);
  const Vector alpha = set(function.alpha), beta = set(function.beta);
  // fn gives the slope.
  const auto run = [&](const auto& fn) {
    for_vectors(values, dy, dx, count, [&](Vector x, Vector g) { return hn::Mul(g, fn(x)); });
  };
  switch (function.kind) {
    case Kind::relu:
      return run([&](Vector y) { return hn::IfThenElseZero(hn::Gt(y, zero), one); });
    case Kind::leaky_relu:
      return run([&](Vector x) { return hn::IfThenElse(hn::Lt(x, zero), alpha, one); });
    case Kind::clip:
      return run([&](Vector x) {
        return hn::IfThenElseZero(hn::And(hn::Ge(x, alpha), hn::Le(x, beta)), one);
      });
    case Kind::elu:
      return run([&](Vector x) {
        return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(alpha, vector_exp(d, x)), one);
      });
    case Kind::sigmoid:
      return run([&](Vector y) { return hn::Mul(y, hn::Sub(one, y)); });
    case Kind::tanh:
      return run([&](Vector y) { return hn::NegMulAdd(y, y, one); });
    case Kind::hard_sigmoid:
      return run([&](Vector y) {
        return hn::IfThenElseZero(hn::And(hn::Gt(y, zero), hn::Lt(y, one)), alpha);
      });
    case Kind::hard_swish:
      return run([&](Vector x) {
        const auto inside = hn::Add(hn::Div(x, set(3)), half);
        return hn::IfThenElse(hn::Le(x, set(-3)), zero,
                              hn::IfThenElse(hn::Ge(x, set(3)), one, inside));
      });
    case Kind::swish:
      return run([&](Vector x) { return swish_slope(x, alpha); });
    case Kind::mish:
      return run([&](Vector x) { return mish_slope(x); });
    case Kind::gelu:
      return run([&](Vector x) { return gelu_slope(x); });
    case Kind::gelu_tanh:
      return run([&](Vector x) { return gelu_tanh_slope(x); });
    case Kind::linear:
      return run([&](Vector) { return alpha; });
    case Kind::softplus:
      return run([&](Vector x) { return vector_sigmoid(d, x); });
    case Kind::erf:
      return run([&](Vector x) {
        return hn::Mul(set(1.12837917f), vector_exp(d, hn::Neg(hn::Mul(x, x))));
      });
    case Kind::exp:
      return run([&](Vector y) { return y; });
    case Kind::sqrt:
      return run([&](Vector y) { return hn::Div(half, y); });
    case Kind::abs:
      return run([&](Vector x) {
        const auto negative = hn::IfThenElseZero(hn::Lt(x, zero), hn::Neg(one));
        return hn::IfThenElse(hn::Gt(x, zero), one, negative);
      });
    case Kind::reciprocal:
      return run([&](Vector y) { return hn::Neg(hn::Mul(y, y)); });
    case Kind::add:
    case Kind::multiply:
      return;  // not of one element
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {

HWY_EXPORT(derivative);

void derivative_loop(const PostOp& function, const float* values, const float* dy, float* dx,
                     std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(derivative)(function, values, dy, dx, count);
}

}  // namespace onnxpress
#endif
