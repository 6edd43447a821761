#include "graph/kernels/quantized_loops.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/quantized_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using Integers = hn::Rebind<std::int32_t, Lanes>;
using Codes = hn::Rebind<std::uint8_t, Lanes>;
using Vector = hn::Vec<Lanes>;

HWY_INLINE Vector centred(hn::Vec<Codes> codes, const CodeFormat& format) {
  const Integers d;
  const auto numbers = hn::PromoteTo(d, hn::Xor(codes, hn::Set(Codes(), format.flip)));
  return hn::ConvertTo(Lanes(), hn::Sub(numbers, hn::Set(d, format.zero_point)));
}

// The code of a value in units of the scale.
HWY_INLINE hn::Vec<Codes> coded(Vector value, const CodeFormat& format) {
  const Lanes d;
  // Wide enough for any code and zero point; NaN becomes the lower bound.
  const auto bounded = hn::IfThenElse(hn::Gt(value, hn::Set(d, -1024)),
                                      hn::Min(value, hn::Set(d, 1024)), hn::Set(d, -1024));
  const auto number = hn::Add(hn::NearestInt(bounded), hn::Set(Integers(), format.zero_point));
  return hn::Xor(hn::DemoteTo(Codes(), number), hn::Set(Codes(), format.flip));
}

// The last vector of `count` elements through padded copies of its operands.
template <class T>
struct Padded {
  HWY_ALIGN T values[HWY_MAX_BYTES] = {};
  Padded() = default;
  Padded(const T* from, std::int64_t count) { std::copy_n(from, count, values); }
};

void quantize(const float* values, std::uint8_t* codes, std::int64_t count,
              const CodeFormat& format) {
  const Lanes d;
  const auto scale = hn::Set(d, format.scale);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(coded(hn::Div(hn::LoadU(d, values + i), scale), format), Codes(), codes + i);
  if (i == count) return;
  const Padded<float> x(values + i, count - i);
  Padded<std::uint8_t> y;
  hn::StoreU(coded(hn::Div(hn::LoadU(d, x.values), scale), format), Codes(), y.values);
  std::copy_n(y.values, count - i, codes + i);
}

void dequantize(const std::uint8_t* codes, float* values, std::int64_t count,
                const CodeFormat& format) {
  const Lanes d;
  const auto scale = hn::Set(d, format.scale);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(hn::Mul(centred(hn::LoadU(Codes(), codes + i), format), scale), d, values + i);
  if (i == count) return;
  const Padded<std::uint8_t> x(codes + i, count - i);
  Padded<float> y;
  hn::StoreU(hn::Mul(centred(hn::LoadU(Codes(), x.values), format), scale), d, y.values);
  std::copy_n(y.values, count - i, values + i);
}

// Codes of a_factor * (a - its zero point) + b_factor * (b - its zero point); `round` makes codes of
// such sums.
template <class Round>
HWY_INLINE void add_rounded(const std::uint8_t* a, const CodeFormat& a_format,
                            const std::uint8_t* b, const CodeFormat& b_format, std::uint8_t* y,
                            float scale, std::int64_t count, const Round& round) {
  const Lanes d;
  const auto a_factor = hn::Set(d, a_format.scale / scale);
  const auto b_factor = hn::Set(d, b_format.scale / scale);
  const auto sum = [&](const std::uint8_t* first, const std::uint8_t* second) {
    const auto x = hn::Mul(centred(hn::LoadU(Codes(), first), a_format), a_factor);
    return round(hn::MulAdd(centred(hn::LoadU(Codes(), second), b_format), b_factor, x));
  };
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(sum(a + i, b + i), Codes(), y + i);
  if (i == count) return;
  const Padded<std::uint8_t> first(a + i, count - i), second(b + i, count - i);
  Padded<std::uint8_t> rest;
  hn::StoreU(sum(first.values, second.values), Codes(), rest.values);
  std::copy_n(rest.values, count - i, y + i);
}

void add_codes(const std::uint8_t* a, const CodeFormat& a_format, const std::uint8_t* b,
               const CodeFormat& b_format, std::uint8_t* y, const CodeFormat& y_format,
               std::int64_t count) {
  // Sums of at most 2^20 are rounded to even by adding 1.5 * 2^23: the low bits of the result hold
  // the integer, of which the zero point of codes is taken account in the same subtraction.
  constexpr float shift = 1.5F * (1 << 23);
  constexpr std::int32_t shift_bits = 0x4B400000;
  if (!(255 * (a_format.scale + b_format.scale) <= (1 << 20) * y_format.scale)) {
    add_rounded(a, a_format, b, b_format, y, y_format.scale, count,
                [&](Vector value) { return coded(value, y_format); });
    return;
  }
  add_rounded(a, a_format, b, b_format, y, y_format.scale, count, [&](Vector value) {
    const auto bits = hn::BitCast(Integers(), hn::Add(value, hn::Set(Lanes(), shift)));
    const auto number = hn::Add(bits, hn::Set(Integers(), y_format.zero_point - shift_bits));
    return hn::Xor(hn::DemoteTo(Codes(), number), hn::Set(Codes(), y_format.flip));
  });
}

FloatRange range(const float* values, std::int64_t count) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto low = hn::Zero(d), high = hn::Zero(d);
  const auto take = [&](Vector x) {
    low = hn::IfThenElse(hn::Lt(x, low), x, low);
    high = hn::IfThenElse(hn::Gt(x, high), x, high);
  };
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) take(hn::LoadU(d, values + i));
  take(hn::LoadU(d, Padded<float>(values + i, count - i).values));
  Padded<float> lows, highs;
  hn::StoreU(low, d, lows.values);
  hn::StoreU(high, d, highs.values);
  return {*std::min_element(lows.values, lows.values + lanes), *std::max_element(highs.values, highs.values + lanes)};
}

void scale_sums(const std::int32_t* sums, float* values, std::int64_t count, const SumScaling& s) {
  const Lanes d;
  const Integers di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto zero_point = hn::Set(di, s.zero_point), row_sum = hn::Set(di, s.row_sum);
  const auto scale = hn::Set(d, s.scale);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    auto sum = hn::Sub(hn::LoadU(di, sums + i), hn::Mul(zero_point, hn::LoadU(di, s.column_sums + i)));
    if (s.column_zeros != nullptr) sum = hn::Sub(sum, hn::Mul(row_sum, hn::LoadU(di, s.column_zeros + i)));
    const auto factor = hn::Mul(scale, hn::LoadU(d, s.column_scales + i));
    auto value = hn::Mul(hn::ConvertTo(d, sum), factor);
    if (s.bias != nullptr) value = hn::Add(value, hn::LoadU(d, s.bias + i));
    hn::StoreU(value, d, values + i);
  }
  for (; i < count; ++i) {
    std::int32_t sum = sums[i] - s.zero_point * s.column_sums[i];
    if (s.column_zeros != nullptr) sum -= s.row_sum * s.column_zeros[i];
    const float value = static_cast<float>(sum) * (s.scale * s.column_scales[i]);
    values[i] = s.bias != nullptr ? value + s.bias[i] : value;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(quantize);
HWY_EXPORT(dequantize);
HWY_EXPORT(add_codes);
HWY_EXPORT(range);
HWY_EXPORT(scale_sums);

}  // namespace

void quantize_loop(const float* values, std::uint8_t* codes, std::int64_t count,
                   const CodeFormat& format) {
  HWY_DYNAMIC_DISPATCH(quantize)(values, codes, count, format);
}

void dequantize_loop(const std::uint8_t* codes, float* values, std::int64_t count,
                     const CodeFormat& format) {
  HWY_DYNAMIC_DISPATCH(dequantize)(codes, values, count, format);
}

void add_codes_loop(const std::uint8_t* a, const CodeFormat& a_format, const std::uint8_t* b,
                    const CodeFormat& b_format, std::uint8_t* y, const CodeFormat& y_format,
                    std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(add_codes)(a, a_format, b, b_format, y, y_format, count);
}

FloatRange range_loop(const float* values, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(range)(values, count);
}

void scale_sums_loop(const std::int32_t* sums, float* values, std::int64_t count, const SumScaling& scaling) {
  HWY_DYNAMIC_DISPATCH(scale_sums)(sums, values, count, scaling);
}

}  // namespace onnxpress
#endif  // HWY_ONCE
