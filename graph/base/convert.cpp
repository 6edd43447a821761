#include "graph/base/convert.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>

#include "graph/base/error.h"
#include "graph/base/minifloat.h"

namespace onnxpress {

namespace {

// ---- single values -------------------------------------------------------------------------

template <FloatFormat F>
constexpr std::array<float, 256> decode_table() {
  std::array<float, 256> table{};
  for (std::uint32_t code = 0; code < 2 * F.sign_bit(); ++code) table[code] = decode_float<F>(code);
  return table;
}

constexpr std::array<float, 256> float8e8m0_table() {
  std::array<float, 256> table{};
  for (std::uint32_t code = 1; code < 255; ++code) table[code] = std::bit_cast<float>(code << 23);
  table[0] = 0x1p-127f;
  table[255] = std::numeric_limits<float>::quiet_NaN();
  return table;
}

const std::array<float, 256>& values_of(DType type) {
  static constexpr auto e4m3fn = decode_table<float8e4m3fn_format>();
  static constexpr auto e4m3fnuz = decode_table<float8e4m3fnuz_format>();
  static constexpr auto e5m2 = decode_table<float8e5m2_format>();
  static constexpr auto e5m2fnuz = decode_table<float8e5m2fnuz_format>();
  static constexpr auto e2m1 = decode_table<float4e2m1_format>();
  static constexpr auto e8m0 = float8e8m0_table();
  switch (type) {
    case DType::float8e4m3fn:
      return e4m3fn;
    case DType::float8e4m3fnuz:
      return e4m3fnuz;
    case DType::float8e5m2:
      return e5m2;
    case DType::float8e5m2fnuz:
      return e5m2fnuz;
    case DType::float4e2m1:
      return e2m1;
    case DType::float8e8m0:
      return e8m0;
    default:
      fail("expected a float type of at most 8 bits, found {}", name(type));
  }
}

// A power of two in the exponent alone; the sign, unspecified in Cast, is ignored.
std::uint8_t encode_float8e8m0(double value, bool saturate, ScaleRounding rounding) {
  constexpr std::uint8_t nan = 0xFF;
  const double magnitude = std::fabs(value);
  if (std::isnan(magnitude)) return nan;
  if (magnitude > 0x1p127) return saturate ? 0xFE : nan;
  if (magnitude < 0x1p-127) return saturate ? 0 : nan;
  const auto word = std::bit_cast<std::uint64_t>(magnitude);
  const auto code = static_cast<int>(word >> 52) - 1023 + 127;
  const std::uint64_t fraction = word << 12;
  const bool up = rounding == ScaleRounding::up        ? fraction != 0
                  : rounding == ScaleRounding::nearest ? fraction >> 63 != 0
                                                       : false;
  return static_cast<std::uint8_t>(code + (up ? 1 : 0));
}

// How Cast's attributes ask for it.
struct Options {
  bool saturate;
  ScaleRounding rounding;
};

template <class F>
std::int32_t truncate_to_int32(F value) {
  constexpr F limit = static_cast<F>(0x1p31);
  return value >= -limit && value < limit ? static_cast<std::int32_t>(value) : INT32_MIN;
}

template <class F>
std::int64_t truncate_to_int64(F value) {
  constexpr F limit = static_cast<F>(0x1p63);
  return value >= -limit && value < limit ? static_cast<std::int64_t>(value) : INT64_MIN;
}

// A float or integer to an integer type (see convert_elements about values out of range).
template <class T, class S>
T to_integer(S value) {
  if constexpr (!std::is_floating_point_v<S>) {
    return static_cast<T>(value);
  } else if constexpr (sizeof(T) <= 2 || std::is_same_v<T, std::int32_t>) {
    return static_cast<T>(truncate_to_int32(value));
  } else if constexpr (std::is_same_v<T, std::uint64_t>) {
    constexpr S two63 = static_cast<S>(0x1p63);
    if (value >= two63 && value < 2 * two63) return static_cast<T>(value);
    return static_cast<T>(truncate_to_int64(value));
  } else {
    return static_cast<T>(truncate_to_int64(value));
  }
}

// A double that rounds to any narrower format as `value` itself does: what does not fit is kept
// as a sticky bit (rounding to odd), so that nothing is rounded to nearest twice.
double to_sticky_double(double value) { return value; }
double to_sticky_double(std::uint64_t value) {
  constexpr std::uint64_t below = (1 << 11) - 1;
  if (value >> 53 == 0) return static_cast<double>(value);
  return static_cast<double>((value & ~below) | ((value & below) != 0 ? below + 1 : 0));
}
double to_sticky_double(std::int64_t value) {
  return value < 0 ? -to_sticky_double(0 - static_cast<std::uint64_t>(value))
                   : to_sticky_double(static_cast<std::uint64_t>(value));
}

// ---- whole arrays --------------------------------------------------------------------------

template <class T>
T load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

// target[i] = convert(source[i]); both may be unaligned.
template <class S, class T, class Convert>
void convert_each(const std::byte* source, std::byte* target, std::size_t count,
                  Convert&& convert) {
  for (std::size_t i = 0; i < count; ++i) {
    const T value = convert(load<S>(source + i * sizeof(S)));
    std::memcpy(target + i * sizeof(T), &value, sizeof value);
  }
}

// Conversions that are worth a loop of their own; false when this pair has none.
bool convert_directly(DType from, const std::byte* source, DType to, std::byte* target,
                      std::size_t count) {
  const auto pair = [](DType a, DType b) { return static_cast<int>(a) * 64 + static_cast<int>(b); };
  const auto cast = [&]<class S, class T>(S, T) {
    convert_each<S, T>(source, target, count, [](S value) {
      if constexpr (std::is_floating_point_v<T>)
        return static_cast<T>(value);
      else
        return to_integer<T>(value);
    });
    return true;
  };
  static_assert(static_cast<int>(DType::int2) < 64);
  switch (pair(from, to)) {
    case pair(DType::float32, DType::float16):
      convert_each<float, std::uint16_t>(source, target, count, encode_half);
      return true;
    case pair(DType::float16, DType::float32):
      convert_each<std::uint16_t, float>(source, target, count, decode_half);
      return true;
    case pair(DType::float32, DType::bfloat16):
      convert_each<float, std::uint16_t>(source, target, count, encode_bfloat16);
      return true;
    case pair(DType::bfloat16, DType::float32):
      convert_each<std::uint16_t, float>(source, target, count, decode_bfloat16);
      return true;
    case pair(DType::float32, DType::float64):
      return cast(float{}, double{});
    case pair(DType::float64, DType::float32):
      return cast(double{}, float{});
    case pair(DType::float32, DType::int8):
      return cast(float{}, std::int8_t{});
    case pair(DType::float32, DType::uint8):
      return cast(float{}, std::uint8_t{});
    case pair(DType::float32, DType::int32):
      return cast(float{}, std::int32_t{});
    case pair(DType::float32, DType::int64):
      return cast(float{}, std::int64_t{});
    case pair(DType::int8, DType::float32):
      return cast(std::int8_t{}, float{});
    case pair(DType::uint8, DType::float32):
      return cast(std::uint8_t{}, float{});
    case pair(DType::int32, DType::float32):
      return cast(std::int32_t{}, float{});
    case pair(DType::int64, DType::float32):
      return cast(std::int64_t{}, float{});
    case pair(DType::int64, DType::int32):
      return cast(std::int64_t{}, std::int32_t{});
    case pair(DType::int32, DType::int64):
      return cast(std::int32_t{}, std::int64_t{});
    case pair(DType::int8, DType::int32):
      return cast(std::int8_t{}, std::int32_t{});
    case pair(DType::uint8, DType::int32):
      return cast(std::uint8_t{}, std::int32_t{});
    default:
      return false;
  }
}

template <class S, class W>
void widen(const std::byte* source, W* wide, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) wide[i] = static_cast<W>(load<S>(source + i * sizeof(S)));
}

unsigned packed_width(DType type) { return type == DType::uint2 || type == DType::int2 ? 2 : 4; }

// Element `index` of packed elements of `width` bits.
inline std::uint8_t unpack(const std::byte* data, unsigned width, std::size_t index) {
  const std::size_t per_byte = 8 / width;
  const unsigned byte = std::to_integer<unsigned>(data[index / per_byte]);
  const unsigned shift = static_cast<unsigned>(index % per_byte) * width;
  return static_cast<std::uint8_t>((byte >> shift) & ((1u << width) - 1));
}

template <unsigned width, class W, class Value>
void widen_packed(const std::byte* source, W* wide, std::size_t count, Value&& value) {
  for (std::size_t i = 0; i < count; ++i) wide[i] = value(unpack(source, width, i));
}

template <unsigned width>
void widen_packed_signed(const std::byte* source, std::int64_t* wide, std::size_t count) {
  constexpr int sign = 1 << (width - 1);
  widen_packed<width>(source, wide, count,
                      [](std::uint8_t code) { return std::int64_t{(code ^ sign) - sign}; });
}

void widen_reals(DType type, const std::byte* source, double* wide, std::size_t count) {
  switch (type) {
    case DType::float32:
      return widen<float>(source, wide, count);
    case DType::float64:
      return widen<double>(source, wide, count);
    case DType::float16:
      for (std::size_t i = 0; i < count; ++i)
        wide[i] = decode_half(load<std::uint16_t>(source + 2 * i));
      return;
    case DType::bfloat16:
      for (std::size_t i = 0; i < count; ++i)
        wide[i] = decode_bfloat16(load<std::uint16_t>(source + 2 * i));
      return;
    case DType::float4e2m1: {
      const auto& values = values_of(type);
      return widen_packed<4>(source, wide, count, [&](std::uint8_t code) { return values[code]; });
    }
    default: {
      const auto& values = values_of(type);
      for (std::size_t i = 0; i < count; ++i)
        wide[i] = values[std::to_integer<std::uint8_t>(source[i])];
    }
  }
}

// All integer types and bool but uint64.
void widen_integers(DType type, const std::byte* source, std::int64_t* wide, std::size_t count) {
  switch (type) {
    case DType::uint8:
      return widen<std::uint8_t>(source, wide, count);
    case DType::int8:
      return widen<std::int8_t>(source, wide, count);
    case DType::uint16:
      return widen<std::uint16_t>(source, wide, count);
    case DType::int16:
      return widen<std::int16_t>(source, wide, count);
    case DType::uint32:
      return widen<std::uint32_t>(source, wide, count);
    case DType::int32:
      return widen<std::int32_t>(source, wide, count);
    case DType::int64:
      return widen<std::int64_t>(source, wide, count);
    case DType::uint4:
      return widen_packed<4>(source, wide, count, std::identity());
    case DType::uint2:
      return widen_packed<2>(source, wide, count, std::identity());
    case DType::int4:
      return widen_packed_signed<4>(source, wide, count);
    case DType::int2:
      return widen_packed_signed<2>(source, wide, count);
    default:  // bool
      for (std::size_t i = 0; i < count; ++i) wide[i] = source[i] != std::byte{0} ? 1 : 0;
  }
}

template <class T, class W>
void narrow_to_integers(const W* wide, std::byte* target, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const T value = to_integer<T>(wide[i]);
    std::memcpy(target + i * sizeof(T), &value, sizeof value);
  }
}

template <FloatFormat F, class W>
void narrow_to_floats(const W* wide, std::byte* target, std::size_t count, bool saturate) {
  using Code =
      std::conditional_t < F.exponent_bits + F.mantissa_bits<8, std::uint8_t, std::uint16_t>;
  for (std::size_t i = 0; i < count; ++i) {
    const auto code = static_cast<Code>(encode_float<F>(to_sticky_double(wide[i]), saturate));
    std::memcpy(target + i * sizeof(Code), &code, sizeof code);
  }
}

// Packs code(i), each of `width` bits; what is left of the last byte is zero.
template <class Code>
void pack(std::byte* target, int width, std::size_t count, Code&& code) {
  const std::size_t per_byte = static_cast<std::size_t>(8 / width);
  for (std::size_t i = 0; i < count; i += per_byte) {
    unsigned packed = 0;
    for (std::size_t j = 0; j < std::min(per_byte, count - i); ++j)
      packed |= (static_cast<unsigned>(code(i + j)) & ((1u << width) - 1)) << (j * width);
    target[i / per_byte] = static_cast<std::byte>(packed);
  }
}

template <class W>
void narrow(const W* wide, DType type, std::byte* target, std::size_t count, Options options) {
  const bool saturate = options.saturate;
  switch (type) {
    case DType::float32:
      for (std::size_t i = 0; i < count; ++i) {
        const auto value = static_cast<float>(wide[i]);
        std::memcpy(target + 4 * i, &value, 4);
      }
      return;
    case DType::float64:
      for (std::size_t i = 0; i < count; ++i) {
        const auto value = static_cast<double>(wide[i]);
        std::memcpy(target + 8 * i, &value, 8);
      }
      return;
    case DType::float16:
      return narrow_to_floats<half_format>(wide, target, count, false);
    case DType::bfloat16:
      return narrow_to_floats<bfloat16_format>(wide, target, count, false);
    case DType::float8e4m3fn:
      return narrow_to_floats<float8e4m3fn_format>(wide, target, count, saturate);
    case DType::float8e4m3fnuz:
      return narrow_to_floats<float8e4m3fnuz_format>(wide, target, count, saturate);
    case DType::float8e5m2:
      return narrow_to_floats<float8e5m2_format>(wide, target, count, saturate);
    case DType::float8e5m2fnuz:
      return narrow_to_floats<float8e5m2fnuz_format>(wide, target, count, saturate);
    case DType::float8e8m0:
      for (std::size_t i = 0; i < count; ++i) {
        target[i] = static_cast<std::byte>(
            encode_float8e8m0(to_sticky_double(wide[i]), saturate, options.rounding));
      }
      return;
    case DType::float4e2m1:
      return pack(target, 4, count, [wide](std::size_t i) {
        return encode_float<float4e2m1_format>(to_sticky_double(wide[i]), true);
      });
    case DType::uint8:
      return narrow_to_integers<std::uint8_t>(wide, target, count);
    case DType::int8:
      return narrow_to_integers<std::int8_t>(wide, target, count);
    case DType::uint16:
      return narrow_to_integers<std::uint16_t>(wide, target, count);
    case DType::int16:
      return narrow_to_integers<std::int16_t>(wide, target, count);
    case DType::uint32:
      return narrow_to_integers<std::uint32_t>(wide, target, count);
    case DType::int32:
      return narrow_to_integers<std::int32_t>(wide, target, count);
    case DType::uint64:
      return narrow_to_integers<std::uint64_t>(wide, target, count);
    case DType::int64:
      return narrow_to_integers<std::int64_t>(wide, target, count);
    case DType::uint4:
    case DType::int4:
    case DType::uint2:
    case DType::int2:
      return pack(target, bits(type), count,
                  [wide](std::size_t i) { return to_integer<std::uint8_t>(wide[i]); });
    default:  // bool
      for (std::size_t i = 0; i < count; ++i)
        target[i] = wide[i] != 0 ? std::byte{1} : std::byte{0};
  }
}

}  // namespace

std::uint16_t float_to_half(float value) { return encode_half(value); }
float half_to_float(std::uint16_t bits) { return decode_half(bits); }
std::uint16_t float_to_bfloat16(float value) { return encode_bfloat16(value); }
float bfloat16_to_float(std::uint16_t bits) { return decode_bfloat16(bits); }

std::uint8_t float_to_minifloat(float value, DType type, bool saturate, ScaleRounding rounding) {
  require(is_float(type) && bits(type) <= 8, "expected a float type of at most 8 bits, found {}",
          name(type));
  std::byte code;
  const double wide = value;
  narrow(&wide, type, &code, 1, {saturate, rounding});
  return std::to_integer<std::uint8_t>(code);
}

float minifloat_to_float(std::uint8_t bits, DType type) {
  return values_of(type)[type == DType::float4e2m1 ? bits & 0xF : bits];
}

std::uint8_t get_packed(const std::byte* data, DType type, std::size_t index) {
  assert(is_sub_byte(type));
  return unpack(data, packed_width(type), index);
}

void set_packed(std::byte* data, DType type, std::size_t index, std::uint8_t code) {
  assert(is_sub_byte(type));
  const unsigned width = packed_width(type);
  const std::size_t per_byte = 8 / width;
  const auto shift = static_cast<unsigned>(index % per_byte) * width;
  const unsigned mask = ((1u << width) - 1) << shift;
  std::byte& target = data[index / per_byte];
  const unsigned kept = std::to_integer<unsigned>(target) & ~mask;
  target = static_cast<std::byte>(kept | (unsigned{code} << shift & mask));
}

void convert_elements(DType from, const std::byte* source, DType to, std::byte* target,
                      std::size_t count, bool saturate, ScaleRounding rounding) {
  if (count == 0) return;
  const auto is_number = [](DType type) {
    return is_float(type) || is_integer(type) || type == DType::boolean;
  };
  if (from == to && (is_number(from) || is_complex(from)) && !is_sub_byte(from) &&
      from != DType::boolean) {
    std::memcpy(target, source, packed_bytes(from, count));
    return;
  }
  require(is_number(from) && is_number(to), "cannot convert {} to {}", name(from), name(to));
  if (convert_directly(from, source, to, target, count)) return;

  constexpr std::size_t chunk = 512;  // whole bytes of every type
  const Options options{saturate, rounding};
  const auto at = [](DType type, std::size_t index) {
    return index * static_cast<std::size_t>(bits(type)) / 8;
  };
  std::array<double, chunk> reals;
  std::array<std::int64_t, chunk> integers;
  std::array<std::uint64_t, chunk> naturals;
  for (std::size_t first = 0; first < count; first += chunk) {
    const std::size_t size = std::min(chunk, count - first);
    const std::byte* const in = source + at(from, first);
    std::byte* const out = target + at(to, first);
    if (is_float(from)) {
      widen_reals(from, in, reals.data(), size);
      narrow(reals.data(), to, out, size, options);
    } else if (from == DType::uint64) {
      std::memcpy(naturals.data(), in, size * sizeof(std::uint64_t));
      narrow(naturals.data(), to, out, size, options);
    } else {
      widen_integers(from, in, integers.data(), size);
      narrow(integers.data(), to, out, size, options);
    }
  }
}

}  // namespace onnxpress
