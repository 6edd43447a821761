// Narrow binary floating-point formats and their codecs; what convert.cpp is built from.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace onnxpress {

// What the codes above the largest finite one mean.
enum class Specials {
  ieee,    // infinities and NaNs, as IEEE 754 has them
  nan,     // "FN": one NaN per sign, exponent and mantissa all ones; no infinities
  unsign,  // "FNUZ": one NaN, in the place of negative zero; no infinities
  none,    // finite values only
};

struct FloatFormat {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  Specials specials;

  constexpr std::uint32_t sign_bit() const { return 1u << (exponent_bits + mantissa_bits); }
  constexpr std::uint32_t infinity() const {  // meaningful for ieee only
    return ((1u << exponent_bits) - 1) << mantissa_bits;
  }
  constexpr std::uint32_t max_finite() const {
    if (specials == Specials::ieee) return infinity() - 1;
    return specials == Specials::nan ? sign_bit() - 2 : sign_bit() - 1;
  }
};

inline constexpr FloatFormat half_format{5, 10, 15, Specials::ieee};
inline constexpr FloatFormat bfloat16_format{8, 7, 127, Specials::ieee};
inline constexpr FloatFormat float8e4m3fn_format{4, 3, 7, Specials::nan};
inline constexpr FloatFormat float8e4m3fnuz_format{4, 3, 8, Specials::unsign};
inline constexpr FloatFormat float8e5m2_format{5, 2, 15, Specials::ieee};
inline constexpr FloatFormat float8e5m2fnuz_format{5, 2, 16, Specials::unsign};
inline constexpr FloatFormat float4e2m1_format{2, 1, 1, Specials::none};

// The code of F nearest to `value`, ties to even, rounded once. Beyond the largest finite value:
// that value when `saturate` (or when F has neither infinities nor NaN), else infinity or NaN.
// A NaN keeps its sign and as much of its payload as an IEEE format of 16 bits holds.
template <FloatFormat F>
constexpr std::uint32_t encode_float(double value, bool saturate) {
  constexpr int double_mantissa = 52;
  constexpr int min_exponent = 1 - F.bias;
  const auto word = std::bit_cast<std::uint64_t>(value);
  const std::uint64_t magnitude = word & ~(std::uint64_t{1} << 63);
  const std::uint32_t sign = magnitude == word ? 0 : F.sign_bit();
  constexpr std::uint64_t infinity = std::uint64_t{0x7FF} << double_mantissa;

  if (magnitude > infinity) {
    if constexpr (F.specials == Specials::none) return F.max_finite();
    if constexpr (F.specials == Specials::unsign) return F.sign_bit();
    if constexpr (F.specials == Specials::nan) return sign | (F.sign_bit() - 1);
    constexpr std::uint32_t quiet = F.infinity() | 1u << (F.mantissa_bits - 1);
    if constexpr (F.exponent_bits + F.mantissa_bits < 15) return sign | quiet;
    const auto payload =
        static_cast<std::uint32_t>(magnitude >> (double_mantissa - F.mantissa_bits));
    return sign | quiet | (payload & ((1u << F.mantissa_bits) - 1));
  }

  std::uint64_t code = F.max_finite() + 1;
  if (magnitude != infinity) {
    const int exponent = static_cast<int>(magnitude >> double_mantissa) - 1023;
    const std::uint64_t leading = std::uint64_t{exponent > -1023} << double_mantissa;
    const std::uint64_t fraction = magnitude & ((std::uint64_t{1} << double_mantissa) - 1);
    const std::uint64_t significand = fraction | leading;
    const int below = exponent < min_exponent ? min_exponent - exponent : 0;
    const int dropped = double_mantissa - F.mantissa_bits + below;
    code = 0;
    if (dropped <= double_mantissa + 1) {
      const std::uint64_t half = std::uint64_t{1} << (dropped - 1);
      const std::uint64_t rest = significand & (2 * half - 1);
      code = significand >> dropped;
      code += rest > half || (rest == half && (code & 1) != 0) ? 1 : 0;
    }
    // The leading one of a normal number, kept in `code`, adds one to the exponent field.
    if (below == 0) code += static_cast<std::uint64_t>(exponent - min_exponent) << F.mantissa_bits;
  }

  if (code > F.max_finite()) {
    if (saturate || F.specials == Specials::none) return sign | F.max_finite();
    if constexpr (F.specials == Specials::ieee) return sign | F.infinity();
    return F.specials == Specials::unsign ? F.sign_bit() : sign | (F.sign_bit() - 1);
  }
  if (F.specials == Specials::unsign && code == 0) return 0;
  return sign | static_cast<std::uint32_t>(code);
}

// The value of a code of F, exact (NaN without payload).
template <FloatFormat F>
constexpr float decode_float(std::uint32_t code) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const std::uint32_t magnitude = code & (F.sign_bit() - 1);
  const bool negative = (code & F.sign_bit()) != 0;
  if (F.specials == Specials::unsign && negative && magnitude == 0) return nan;
  if (magnitude > F.max_finite()) {
    if (F.specials == Specials::ieee && magnitude == F.infinity()) {
      constexpr float infinity = std::numeric_limits<float>::infinity();
      return negative ? -infinity : infinity;
    }
    return negative ? -nan : nan;
  }
  const auto field = static_cast<int>(magnitude >> F.mantissa_bits);
  const std::uint32_t mantissa = magnitude & ((1u << F.mantissa_bits) - 1);
  const int exponent = (field == 0 ? 1 : field) - F.bias - F.mantissa_bits;
  double value = field == 0 ? mantissa : mantissa | 1u << F.mantissa_bits;
  for (int i = 0; i < exponent; ++i) value *= 2;
  for (int i = 0; i > exponent; --i) value /= 2;
  return static_cast<float>(negative ? -value : value);
}

// The two 16-bit formats from and to float, without branches so that loops over them vectorize.
inline std::uint16_t encode_half(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = word & 0x7FFFFFFFu;
  const std::uint32_t sign = (word ^ magnitude) >> 16;
  const std::uint32_t odd = (magnitude >> 13) & 1;
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xFFF + odd) >> 13;
  // Adding 1/2 aligns a subnormal's bits at the end of the mantissa, rounded by the addition.
  const auto aligned = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f);
  const std::uint32_t subnormal = aligned - (126u << 23);
  const std::uint32_t nan = 0x7E00u | ((magnitude >> 13) & 0x3FF);
  std::uint32_t code = magnitude < (113u << 23) ? subnormal : normal;
  code = magnitude >= (143u << 23) ? 0x7C00u : code;
  code = magnitude > 0x7F800000u ? nan : code;
  return static_cast<std::uint16_t>(sign | code);
}

inline float decode_half(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t shifted = static_cast<std::uint32_t>(bits & 0x7FFF) << 13;
  const std::uint32_t exponent = shifted & (31u << 23);
  const std::uint32_t normal = shifted + (112u << 23);
  // A subnormal is read as 2^-14 + its value, which is then taken off.
  const auto subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(shifted + (113u << 23)) - 0x1p-14f);
  std::uint32_t word = exponent == 0 ? subnormal : normal;
  word = exponent == (31u << 23) ? shifted + (224u << 23) : word;
  return std::bit_cast<float>(sign | word);
}

inline std::uint16_t encode_bfloat16(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (word + 0x7FFF + ((word >> 16) & 1)) >> 16;
  const std::uint32_t nan = (word >> 16) | 0x40;
  return static_cast<std::uint16_t>((word & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

inline float decode_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace onnxpress
