#include "graph/kernels/optimizer_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/optimizer_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// body(d, offset) for whole vectors, then for single elements.
template <class T, class Body>
HWY_INLINE void for_lanes(std::int64_t count, const Body& body) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  for (; i < count; ++i) body(hn::CappedTag<T, 1>(), i);
}

template <class T, class D, class V = hn::Vec<D>>
HWY_INLINE V slope(D d, const GradientTerms<T>& terms, V g, V w) {
  const V limit = hn::Set(d, terms.limit);
  // Min and Max would drop NaN.
  const V scaled = hn::Mul(g, hn::Set(d, terms.factor));
  const V high = hn::IfThenElse(hn::Gt(scaled, limit), limit, scaled);
  const V low = hn::Neg(limit);
  const V bounded = hn::IfThenElse(hn::Lt(high, low), low, high);
  const V pulled = hn::Add(bounded, hn::Mul(hn::Set(d, terms.l2), w));
  const V l1 = hn::Set(d, terms.l1), zero = hn::Zero(d);
  const V sign = hn::IfThenElse(hn::Gt(w, zero), l1, hn::IfThenElse(hn::Lt(w, zero), hn::Neg(l1), zero));
  return hn::Add(pulled, sign);
}

template <class T>
void momentum(const MomentumStep<T>& step, const GradientTerms<T>& terms, T* HWY_RESTRICT w,
              const T* HWY_RESTRICT g, T* HWY_RESTRICT m, std::int64_t count) {
  for_lanes<T>(count, [&](auto d, std::int64_t i) {
    const auto old = hn::LoadU(d, w + i);
    auto move = slope<T>(d, terms, hn::LoadU(d, g + i), old);
    if (m != nullptr) {
      const auto by = hn::Set(d, step.momentum);
      const auto velocity = hn::Add(hn::Mul(by, hn::LoadU(d, m + i)), move);
      hn::StoreU(velocity, d, m + i);
      move = step.nesterov ? hn::Add(move, hn::Mul(by, velocity)) : velocity;
    }
    hn::StoreU(hn::Sub(hn::Mul(hn::Set(d, step.keep), old), hn::Mul(hn::Set(d, step.rate), move)), d, w + i);
  });
}

template <class T>
void adam(const AdamStep<T>& step, const GradientTerms<T>& terms, T* HWY_RESTRICT w,
          const T* HWY_RESTRICT g, T* HWY_RESTRICT m, T* HWY_RESTRICT v, std::int64_t count) {
  for_lanes<T>(count, [&](auto d, std::int64_t i) {
    const auto old = hn::LoadU(d, w + i);
    const auto gradient = slope<T>(d, terms, hn::LoadU(d, g + i), old);
    const auto first = hn::Add(hn::Mul(hn::Set(d, step.beta1), hn::LoadU(d, m + i)),
                               hn::Mul(hn::Set(d, step.rest1), gradient));
    const auto second = hn::Add(hn::Mul(hn::Set(d, step.beta2), hn::LoadU(d, v + i)),
                                hn::Mul(hn::Mul(hn::Set(d, step.rest2), gradient), gradient));
    hn::StoreU(first, d, m + i);
    hn::StoreU(second, d, v + i);
    const auto divisor =
        hn::Add(hn::Mul(hn::Sqrt(second), hn::Set(d, step.scale)), hn::Set(d, step.epsilon));
    const auto move = hn::Div(hn::Mul(hn::Set(d, step.size), first), divisor);
    hn::StoreU(hn::Sub(hn::Mul(hn::Set(d, step.keep), old), move), d, w + i);
  });
}

template <class T>
void rmsprop(const RmspropStep<T>& step, const GradientTerms<T>& terms, T* HWY_RESTRICT w,
             const T* HWY_RESTRICT g, T* HWY_RESTRICT v, std::int64_t count) {
  for_lanes<T>(count, [&](auto d, std::int64_t i) {
    const auto old = hn::LoadU(d, w + i);
    const auto gradient = slope<T>(d, terms, hn::LoadU(d, g + i), old);
    const auto second = hn::Add(hn::Mul(hn::Set(d, step.smoothing), hn::LoadU(d, v + i)),
                                hn::Mul(hn::Mul(hn::Set(d, step.rest), gradient), gradient));
    hn::StoreU(second, d, v + i);
    const auto move = hn::Div(hn::Mul(hn::Set(d, step.rate), gradient),
                              hn::Add(hn::Sqrt(second), hn::Set(d, step.epsilon)));
    hn::StoreU(hn::Sub(hn::Mul(hn::Set(d, step.keep), old), move), d, w + i);
  });
}

// Lanes of doubles, from values of either type.
template <class D>
HWY_INLINE hn::Vec<D> load_wide(D d, const float* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), from));
}
template <class D>
HWY_INLINE hn::Vec<D> load_wide(D d, const double* from) {
  return hn::LoadU(d, from);
}

template <class T>
double squares(const T* g, std::int64_t count) {
  const hn::ScalableTag<double> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto even = hn::Zero(d), odd = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto a = load_wide(d, g + i), b = load_wide(d, g + i + lanes);
    even = hn::MulAdd(a, a, even);
    odd = hn::MulAdd(b, b, odd);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  for (; i < count; ++i) sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  return sum;
}

void momentum_float(const MomentumStep<float>& step, const GradientTerms<float>& terms, float* w,
                    const float* g, float* m, std::int64_t count) {
  momentum(step, terms, w, g, m, count);
}
void momentum_double(const MomentumStep<double>& step, const GradientTerms<double>& terms, double* w,
                     const double* g, double* m, std::int64_t count) {
  momentum(step, terms, w, g, m, count);
}
void adam_float(const AdamStep<float>& step, const GradientTerms<float>& terms, float* w,
                const float* g, float* m, float* v, std::int64_t count) {
  adam(step, terms, w, g, m, v, count);
}
void adam_double(const AdamStep<double>& step, const GradientTerms<double>& terms, double* w,
                 const double* g, double* m, double* v, std::int64_t count) {
  adam(step, terms, w, g, m, v, count);
}
void rmsprop_float(const RmspropStep<float>& step, const GradientTerms<float>& terms, float* w,
                   const float* g, float* v, std::int64_t count) {
  rmsprop(step, terms, w, g, v, count);
}
void rmsprop_double(const RmspropStep<double>& step, const GradientTerms<double>& terms, double* w,
                    const double* g, double* v, std::int64_t count) {
  rmsprop(step, terms, w, g, v, count);
}
double squares_float(const float* g, std::int64_t count) { return squares(g, count); }
double squares_double(const double* g, std::int64_t count) { return squares(g, count); }

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {

HWY_EXPORT(momentum_float);
HWY_EXPORT(momentum_double);
HWY_EXPORT(adam_float);
HWY_EXPORT(adam_double);
HWY_EXPORT(rmsprop_float);
HWY_EXPORT(rmsprop_double);
HWY_EXPORT(squares_float);
HWY_EXPORT(squares_double);

template <>
void momentum_loop(const MomentumStep<float>& step, const GradientTerms<float>& terms, float* w,
                   const float* g, float* m, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(momentum_float)(step, terms, w, g, m, count);
}
template <>
void momentum_loop(const MomentumStep<double>& step, const GradientTerms<double>& terms, double* w,
                   const double* g, double* m, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(momentum_double)(step, terms, w, g, m, count);
}
template <>
void adam_loop(const AdamStep<float>& step, const GradientTerms<float>& terms, float* w,
               const float* g, float* m, float* v, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(adam_float)(step, terms, w, g, m, v, count);
}
template <>
void adam_loop(const AdamStep<double>& step, const GradientTerms<double>& terms, double* w,
               const double* g, double* m, double* v, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(adam_double)(step, terms, w, g, m, v, count);
}
template <>
void rmsprop_loop(const RmspropStep<float>& step, const GradientTerms<float>& terms, float* w,
                  const float* g, float* v, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(rmsprop_float)(step, terms, w, g, v, count);
}
template <>
void rmsprop_loop(const RmspropStep<double>& step, const GradientTerms<double>& terms, double* w,
                  const double* g, double* v, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(rmsprop_double)(step, terms, w, g, v, count);
}
template <>
double squares_loop(const float* g, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(squares_float)(g, count);
}
template <>
double squares_loop(const double* g, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(squares_double)(g, count);
}

}  // namespace onnxpress
#endif
