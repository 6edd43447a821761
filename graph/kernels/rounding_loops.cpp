#include "graph/kernels/rounding_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/rounding_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;

HWY_INLINE Vector stretched(Vector sigmoid) {
  const Lanes d;
  return hn::MulAdd(sigmoid, hn::Set(d, rectified_high - rectified_low), hn::Set(d, rectified_low));
}

void soften(const float* base, const float* step, const float* choice, float* weight, std::int64_t count) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; i += lanes) {
    const Vector h = stretched(vector_sigmoid(d, hn::LoadU(d, choice + i)));
    const Vector rectified = hn::Min(hn::Max(h, hn::Zero(d)), hn::Set(d, 1.0F));
    hn::StoreU(hn::Mul(hn::LoadU(d, step + i), hn::Add(hn::LoadU(d, base + i), rectified)), d, weight + i);
  }
}

void gradient_of(const RoundingStep& step, const float* weight_gradient, const float* steps, const float* choice,
                 float* gradient, std::int64_t count) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Vector one = hn::Set(d, 1.0F), zero = hn::Zero(d);
  for (std::int64_t i = 0; i < count; i += lanes) {
    const Vector sigmoid = vector_sigmoid(d, hn::LoadU(d, choice + i));
    const Vector h = stretched(sigmoid);
    const Vector away = hn::Sub(hn::Add(h, h), one);
    Vector slope = hn::Mul(hn::LoadU(d, weight_gradient + i), hn::LoadU(d, steps + i));
    if (step.regularization > 0) {
      const Vector size = hn::Max(hn::Abs(away), hn::Set(d, 1e-30F));
      const Vector power = hn::Exp(d, hn::Mul(hn::Set(d, step.exponent - 1), hn::Log(d, size)));
      const Vector pull = hn::Mul(hn::Set(d, 2 * step.regularization * step.exponent), power);
      slope = hn::Sub(slope, hn::CopySign(pull, away));
    }
    slope = hn::Mul(slope, hn::Mul(hn::Set(d, rectified_high - rectified_low), hn::Mul(sigmoid, hn::Sub(one, sigmoid))));
    const auto inside = hn::And(hn::Gt(h, zero), hn::Lt(h, one));
    hn::StoreU(hn::IfThenElseZero(inside, slope), d, gradient + i);
  }
}

void descend(const RoundingStep& step, const float* gradient, float* choice, float* first_moment,
             float* second_moment, std::int64_t count) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Vector first_share = hn::Set(d, 1 - RoundingStep::first_decay);
  const Vector second_share = hn::Set(d, 1 - RoundingStep::second_decay);
  const Vector rate = hn::Set(d, step.rate * step.first_correction);
  const Vector correction = hn::Set(d, step.second_correction);
  const Vector least = hn::Set(d, 1e-8F);
  for (std::int64_t i = 0; i < count; i += lanes) {
    const Vector slope = hn::LoadU(d, gradient + i);
    const auto moves = hn::Ne(slope, hn::Zero(d));
    const Vector first = hn::LoadU(d, first_moment + i), second = hn::LoadU(d, second_moment + i);
    const Vector next_first = hn::MulAdd(first_share, hn::Sub(slope, first), first);
    const Vector next_second = hn::MulAdd(second_share, hn::Sub(hn::Mul(slope, slope), second), second);
    const Vector size = hn::Add(hn::Sqrt(hn::Mul(next_second, correction)), least);
    const Vector now = hn::LoadU(d, choice + i);
    const Vector next = hn::Sub(now, hn::Div(hn::Mul(rate, next_first), size));
    hn::StoreU(hn::IfThenElse(moves, next_first, first), d, first_moment + i);
    hn::StoreU(hn::IfThenElse(moves, next_second, second), d, second_moment + i);
    hn::StoreU(hn::IfThenElse(moves, next, now), d, choice + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {

HWY_EXPORT(soften);
HWY_EXPORT(gradient_of);
HWY_EXPORT(descend);

void soften_rounding(const float* base, const float* step, const float* choice, float* weight, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(soften)(base, step, choice, weight, count);
}

void rounding_gradient(const RoundingStep& step, const float* weight_gradient, const float* steps, const float* choice,
                       float* gradient, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(gradient_of)(step, weight_gradient, steps, choice, gradient, count);
}

void descend_rounding(const RoundingStep& step, const float* gradient, float* choice, float* first_moment,
                      float* second_moment, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(descend)(step, gradient, choice, first_moment, second_moment, count);
}

}  // namespace onnxpress
#endif  // HWY_ONCE
