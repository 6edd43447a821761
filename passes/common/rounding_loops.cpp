#include "passes/common/rounding_loops.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "passes/common/rounding_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// x * 0 is NaN exactly for NaN and infinity.
bool range(const float* x, std::int64_t count, float& low, float& high) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  float smallest = low, largest = high, rest = 0;
  if (count >= lanes) {
    auto least = hn::Set(d, low), most = hn::Set(d, high), odd = hn::Zero(d);
    for (; i + lanes <= count; i += lanes) {
      const auto v = hn::LoadU(d, x + i);
      least = hn::Min(least, v);
      most = hn::Max(most, v);
      odd = hn::MulAdd(v, hn::Zero(d), odd);
    }
    smallest = hn::GetLane(hn::MinOfLanes(d, least));
    largest = hn::GetLane(hn::MaxOfLanes(d, most));
    rest = hn::GetLane(hn::SumOfLanes(d, odd));
  }
  for (; i < count; ++i) {
    smallest = std::min(smallest, x[i]);
    largest = std::max(largest, x[i]);
    rest += x[i] * 0.0F;
  }
  low = smallest;
  high = largest;
  return rest == 0.0F;
}

bool ranges(const float* x, std::int64_t count, float* low, float* high) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto odd = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    hn::StoreU(hn::Min(hn::LoadU(d, low + i), v), d, low + i);
    hn::StoreU(hn::Max(hn::LoadU(d, high + i), v), d, high + i);
    odd = hn::MulAdd(v, hn::Zero(d), odd);
  }
  float rest = hn::GetLane(hn::SumOfLanes(d, odd));
  for (; i < count; ++i) {
    low[i] = std::min(low[i], x[i]);
    high[i] = std::max(high[i], x[i]);
    rest += x[i] * 0.0F;
  }
  return rest == 0.0F;
}

// As many floats and codes as there are doubles in a vector: sums are doubles.
using Doubles = hn::ScalableTag<double>;
using Floats = hn::Rebind<float, Doubles>;
using Integers = hn::Rebind<std::int32_t, Doubles>;

// One vector of each: stores the codes, adds squares to `signal` and `noise`.
template <class T>
HWY_INLINE void round_vector(const float* x, const float* scale, const float* zero, hn::Vec<Floats> low,
                             hn::Vec<Floats> high, T* codes, RoundingSums& sums, hn::Vec<Doubles>& signal,
                             hn::Vec<Doubles>& noise) {
  const Floats d;
  const auto value = hn::LoadU(d, x), step = hn::LoadU(d, scale), middle = hn::LoadU(d, zero);
  const auto unbounded = hn::Add(hn::Round(hn::Div(value, step)), middle);
  const auto code = hn::Min(hn::Max(unbounded, low), high);
  const hn::Rebind<T, Doubles> narrow;
  hn::StoreU(hn::DemoteTo(narrow, hn::ConvertTo(Integers(), code)), narrow, codes);
  sums.clipped += static_cast<std::int64_t>(hn::CountTrue(d, hn::Ne(unbounded, code)));
  sums.zeros += static_cast<std::int64_t>(hn::CountTrue(d, hn::Eq(code, middle)));
  const auto wide = hn::PromoteTo(Doubles(), value);
  const auto error = hn::Sub(wide, hn::PromoteTo(Doubles(), hn::Mul(hn::Sub(code, middle), step)));
  signal = hn::MulAdd(wide, wide, signal);
  noise = hn::MulAdd(error, error, noise);
}

#if HWY_TARGET != HWY_SCALAR
// Two of them, the sums in the same order.
template <class T>
HWY_INLINE void round_two_vectors(const float* x, const float* scale, const float* zero, float low, float high,
                                  T* codes, RoundingSums& sums, hn::Vec<Doubles>& signal, hn::Vec<Doubles>& noise) {
  const hn::ScalableTag<float> d;
  const auto value = hn::LoadU(d, x), step = hn::LoadU(d, scale), middle = hn::LoadU(d, zero);
  const auto unbounded = hn::Add(hn::Round(hn::Div(value, step)), middle);
  const auto code = hn::Min(hn::Max(unbounded, hn::Set(d, low)), hn::Set(d, high));
  const hn::Rebind<T, decltype(d)> narrow;
  hn::StoreU(hn::DemoteTo(narrow, hn::ConvertTo(hn::RebindToSigned<decltype(d)>(), code)), narrow, codes);
  sums.clipped += static_cast<std::int64_t>(hn::CountTrue(d, hn::Ne(unbounded, code)));
  sums.zeros += static_cast<std::int64_t>(hn::CountTrue(d, hn::Eq(code, middle)));
  const auto rounded = hn::Mul(hn::Sub(code, middle), step);
  const auto add = [&](auto values, auto levels) {
    const auto wide = hn::PromoteTo(Doubles(), values);
    const auto error = hn::Sub(wide, hn::PromoteTo(Doubles(), levels));
    signal = hn::MulAdd(wide, wide, signal);
    noise = hn::MulAdd(error, error, noise);
  };
  add(hn::LowerHalf(Floats(), value), hn::LowerHalf(Floats(), rounded));
  add(hn::UpperHalf(Floats(), value), hn::UpperHalf(Floats(), rounded));
}
#endif

template <class T>
HWY_INLINE void round_codes(const float* x, const float* scale, const float* zero, std::int64_t count, float low,
                            float high, T* codes, RoundingSums& sums) {
  const auto least = hn::Set(Floats(), low), most = hn::Set(Floats(), high);
  auto signal = hn::Zero(Doubles()), noise = hn::Zero(Doubles());
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Floats()));
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; i + 2 * lanes <= count; i += 2 * lanes)
    round_two_vectors(x + i, scale + i, zero + i, low, high, codes + i, sums, signal, noise);
#endif
  for (; i + lanes <= count; i += lanes)
    round_vector(x + i, scale + i, zero + i, least, most, codes + i, sums, signal, noise);
  if (i < count) {
    constexpr std::size_t longest = HWY_MAX_BYTES / sizeof(double);
    float values[longest] = {}, scales[longest], zeros[longest];
    T rest[longest];
    std::fill_n(scales, longest, 1.0F);
    std::fill_n(zeros, longest, low);  // what fills up is 0, and not clipped
    std::copy(x + i, x + count, values);
    std::copy(scale + i, scale + count, scales);
    std::copy(zero + i, zero + count, zeros);
    round_vector(values, scales, zeros, least, most, rest, sums, signal, noise);
    std::copy_n(rest, count - i, codes + i);
    sums.zeros -= lanes - (count - i);
  }
  sums.signal += hn::GetLane(hn::SumOfLanes(Doubles(), signal));
  sums.noise += hn::GetLane(hn::SumOfLanes(Doubles(), noise));
}

void round_int8(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                std::int8_t* codes, RoundingSums& sums) {
  round_codes(x, scale, zero, count, low, high, codes, sums);
}
void round_uint8(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                 std::uint8_t* codes, RoundingSums& sums) {
  round_codes(x, scale, zero, count, low, high, codes, sums);
}
void round_int16(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                 std::int16_t* codes, RoundingSums& sums) {
  round_codes(x, scale, zero, count, low, high, codes, sums);
}
void round_uint16(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                  std::uint16_t* codes, RoundingSums& sums) {
  round_codes(x, scale, zero, count, low, high, codes, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(range);
HWY_EXPORT(ranges);
HWY_EXPORT(round_int8);
HWY_EXPORT(round_uint8);
HWY_EXPORT(round_int16);
HWY_EXPORT(round_uint16);

}  // namespace

bool range_loop(const float* x, std::int64_t count, float& low, float& high) {
  return HWY_DYNAMIC_DISPATCH(range)(x, count, low, high);
}

bool ranges_loop(const float* x, std::int64_t count, float* low, float* high) {
  return HWY_DYNAMIC_DISPATCH(ranges)(x, count, low, high);
}

template <>
void round_loop(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                std::int8_t* codes, RoundingSums& sums) {
  HWY_DYNAMIC_DISPATCH(round_int8)(x, scale, zero, count, low, high, codes, sums);
}

template <>
void round_loop(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                std::uint8_t* codes, RoundingSums& sums) {
  HWY_DYNAMIC_DISPATCH(round_uint8)(x, scale, zero, count, low, high, codes, sums);
}

template <>
void round_loop(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                std::int16_t* codes, RoundingSums& sums) {
  HWY_DYNAMIC_DISPATCH(round_int16)(x, scale, zero, count, low, high, codes, sums);
}

template <>
void round_loop(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                std::uint16_t* codes, RoundingSums& sums) {
  HWY_DYNAMIC_DISPATCH(round_uint16)(x, scale, zero, count, low, high, codes, sums);
}

}  // namespace onnxpress
#endif  // HWY_ONCE
