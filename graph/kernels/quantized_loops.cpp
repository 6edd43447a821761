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

void add_codes(const std::uint8_t* a, const CodeFormat& a_format, const std::uint8_t* b,
               const CodeFormat& b_format, std::uint8_t* y, const CodeFormat& y_format,
               std::int64_t count) {
  const Lanes d;
  const auto a_factor = hn::Set(d, a_format.scale / y_format.scale);
  const auto b_factor = hn::Set(d, b_format.scale / y_format.scale);
  const auto sum = [&](const std::uint8_t* first, const std::uint8_t* second) {
    const auto x = hn::Mul(centred(hn::LoadU(Codes(), first), a_format), a_factor);
    return coded(hn::MulAdd(centred(hn::LoadU(Codes(), second), b_format), b_factor, x), y_format);
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

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(quantize);
HWY_EXPORT(dequantize);
HWY_EXPORT(add_codes);

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

}  // namespace onnxpress
#endif  // HWY_ONCE
