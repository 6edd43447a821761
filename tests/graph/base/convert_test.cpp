#include "graph/base/convert.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "graph/base/error.h"
#include "graph/base/random.h"

using onnxpress::convert_elements;
using onnxpress::DType;
using onnxpress::ScaleRounding;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
const float quiet_nan = std::numeric_limits<float>::quiet_NaN();

const std::vector<DType> narrow_floats = {
    DType::float16,    DType::bfloat16,       DType::float8e4m3fn, DType::float8e4m3fnuz,
    DType::float8e5m2, DType::float8e5m2fnuz, DType::float4e2m1};
const std::vector<DType> numbers = {DType::float32,
                                    DType::uint8,
                                    DType::int8,
                                    DType::uint16,
                                    DType::int16,
                                    DType::int32,
                                    DType::int64,
                                    DType::boolean,
                                    DType::float16,
                                    DType::float64,
                                    DType::uint32,
                                    DType::uint64,
                                    DType::bfloat16,
                                    DType::float8e4m3fn,
                                    DType::float8e4m3fnuz,
                                    DType::float8e5m2,
                                    DType::float8e5m2fnuz,
                                    DType::uint4,
                                    DType::int4,
                                    DType::float4e2m1,
                                    DType::float8e8m0,
                                    DType::uint2,
                                    DType::int2};

// ---- a slow reference: every format as the table of its values -----------------------------

// Exponent bits, mantissa bits, bias; the largest finite code.
struct Layout {
  int exponent, mantissa, bias;
  std::uint32_t largest;
};

Layout layout_of(DType type) {
  switch (type) {
    case DType::float16:
      return {5, 10, 15, 0x7BFF};
    case DType::bfloat16:
      return {8, 7, 127, 0x7F7F};
    case DType::float8e4m3fn:
      return {4, 3, 7, 0x7E};
    case DType::float8e4m3fnuz:
      return {4, 3, 8, 0x7F};
    case DType::float8e5m2:
      return {5, 2, 15, 0x7B};
    case DType::float8e5m2fnuz:
      return {5, 2, 16, 0x7F};
    default:
      return {2, 1, 1, 7};
  }
}

bool is_fnuz(DType type) { return type == DType::float8e4m3fnuz || type == DType::float8e5m2fnuz; }
bool has_infinity(DType type) {
  return type == DType::float16 || type == DType::bfloat16 || type == DType::float8e5m2;
}

// The value of a non-negative code, as if the exponent field had no special values.
long double value_of(const Layout& layout, std::uint32_t code) {
  const int field = static_cast<int>(code >> layout.mantissa);
  const long double fraction =
      std::ldexp(static_cast<long double>(code & ((1u << layout.mantissa) - 1)), -layout.mantissa);
  return field == 0 ? std::ldexp(fraction, 1 - layout.bias)
                    : std::ldexp(1 + fraction, field - layout.bias);
}

const std::vector<long double>& values_of(DType type) {  // one past the largest finite value
  static std::map<DType, std::vector<long double>> tables;
  std::vector<long double>& table = tables[type];
  if (table.empty()) {
    const Layout layout = layout_of(type);
    for (std::uint32_t code = 0; code <= layout.largest + 1; ++code)
      table.push_back(value_of(layout, code));
  }
  return table;
}

std::uint32_t nan_code(DType type) {
  switch (type) {
    case DType::float16:
      return 0x7E00;
    case DType::bfloat16:
      return 0x7FC0;
    case DType::float8e4m3fn:
      return 0x7F;
    case DType::float8e5m2:
      return 0x7E;
    case DType::float4e2m1:
      return 7;
    default:
      return 0x80;
  }
}

// Cast's tables: the nearest value, the even code on a tie.
std::uint32_t encode_slowly(long double value, DType type, bool saturate) {
  const Layout layout = layout_of(type);
  const std::uint32_t sign_bit = 1u << (layout.exponent + layout.mantissa);
  const std::uint32_t sign = std::signbit(value) ? sign_bit : 0;
  const long double magnitude = std::fabs(value);
  if (std::isnan(value)) {
    return is_fnuz(type) || type == DType::float4e2m1 ? nan_code(type) : sign | nan_code(type);
  }
  const std::vector<long double>& values = values_of(type);
  auto code = static_cast<std::uint32_t>(std::upper_bound(values.begin(), values.end(), magnitude) -
                                         values.begin() - 1);
  if (code <= layout.largest) {
    const long double below = magnitude - values[code];
    const long double above = values[code + 1] - magnitude;
    if (above < below || (above == below && code % 2 == 1)) ++code;
  }
  if (code > layout.largest) {
    const bool is_8_bit = sign_bit == 0x80;
    if (type == DType::float4e2m1 || (is_8_bit && saturate)) return sign | layout.largest;
    if (has_infinity(type)) return sign | (layout.largest + 1);
    return is_fnuz(type) ? 0x80 : sign | nan_code(type);
  }
  return is_fnuz(type) && code == 0 ? 0 : sign | code;
}

// ---- elements of any type ------------------------------------------------------------------

template <class T>
T read(const std::byte* data, std::size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof value);
  return value;
}

std::uint64_t code_at(const std::byte* data, DType type, std::size_t index) {
  switch (onnxpress::bits(type)) {
    case 64:
      return read<std::uint64_t>(data, index);
    case 32:
      return read<std::uint32_t>(data, index);
    case 16:
      return read<std::uint16_t>(data, index);
    case 8:
      return read<std::uint8_t>(data, index);
    default:
      return onnxpress::get_packed(data, type, index);
  }
}

// The value of a code; long double holds every value of every type.
long double value_of_code(std::uint64_t code, DType type) {
  switch (type) {
    case DType::float32:
      return std::bit_cast<float>(static_cast<std::uint32_t>(code));
    case DType::float64:
      return std::bit_cast<double>(code);
    case DType::float16:
      return onnxpress::half_to_float(static_cast<std::uint16_t>(code));
    case DType::bfloat16:
      return onnxpress::bfloat16_to_float(static_cast<std::uint16_t>(code));
    case DType::boolean:
      return code != 0 ? 1 : 0;
    default:
      break;
  }
  if (onnxpress::is_float(type))
    return onnxpress::minifloat_to_float(static_cast<std::uint8_t>(code), type);
  if (!onnxpress::is_signed_integer(type)) return static_cast<long double>(code);
  const int shift = 64 - onnxpress::bits(type);
  return static_cast<std::int64_t>(code << shift) >> shift;
}

// What Cast makes of a value, with the rules of convert.h for floats out of an integer's range.
std::uint64_t cast_slowly(long double value, bool from_float, DType to, bool saturate) {
  if (to == DType::float32) return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (to == DType::float64) return std::bit_cast<std::uint64_t>(static_cast<double>(value));
  if (to == DType::boolean) return value != 0 ? 1 : 0;
  if (to == DType::float8e8m0) {
    const long double magnitude = std::fabs(value);
    if (std::isnan(value)) return 0xFF;
    if (magnitude > 0x1p127L) return saturate ? 0xFE : 0xFF;
    if (magnitude < 0x1p-127L) return saturate ? 0 : 0xFF;
    return static_cast<std::uint64_t>(std::ceil(std::log2(magnitude)) + 127);
  }
  if (onnxpress::is_float(to)) return encode_slowly(value, to, saturate);

  const int width = onnxpress::bits(to);
  const std::uint64_t mask = width == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << width) - 1;
  if (!from_float && value >= 0) return static_cast<std::uint64_t>(value) & mask;
  if (!from_float) return static_cast<std::uint64_t>(static_cast<std::int64_t>(value)) & mask;
  if (to == DType::uint64 && value >= 0x1p63L && value < 0x1p64L)
    return static_cast<std::uint64_t>(value);
  const int through = width <= 16 || to == DType::int32 ? 32 : 64;
  const long double limit = std::ldexp(1.0L, through - 1);
  const bool fits = value >= -limit && value < limit;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(fits ? value : -limit)) & mask;
}

bool is_nan_code(std::uint64_t code, DType type) {
  return onnxpress::is_float(type) && std::isnan(value_of_code(code, type));
}

template <class S>
std::uint64_t cast_one(S value, DType to, bool saturate = true,
                       ScaleRounding rounding = ScaleRounding::up) {
  std::uint64_t result = 0;
  convert_elements(onnxpress::dtype_of<S>, reinterpret_cast<const std::byte*>(&value), to,
                   reinterpret_cast<std::byte*>(&result), 1, saturate, rounding);
  return result;
}

}  // namespace

TEST_CASE("all codes of all narrow floats decode to their values and encode back") {
  for (const DType type : narrow_floats) {
    CAPTURE(onnxpress::name(type));
    const Layout layout = layout_of(type);
    const std::uint32_t sign_bit = 1u << (layout.exponent + layout.mantissa);
    for (std::uint32_t code = 0; code < 2 * sign_bit; ++code) {
      const std::uint32_t magnitude = code & (sign_bit - 1);
      const auto value = static_cast<float>(value_of_code(code, type));
      const std::uint64_t back = cast_one(value, type, false);
      if (is_fnuz(type) && code == sign_bit) {
        REQUIRE(std::isnan(value));
        REQUIRE(back == code);
      } else if (magnitude <= layout.largest) {
        REQUIRE(std::fabs(value) == static_cast<float>(value_of(layout, magnitude)));
        REQUIRE(std::signbit(value) == (code != magnitude));
        REQUIRE(back == code);
        REQUIRE(cast_one(static_cast<double>(value), type, true) == code);
      } else if (has_infinity(type) && magnitude == layout.largest + 1) {
        REQUIRE(value == (code != magnitude ? -inf : inf));
        REQUIRE(back == code);
      } else {
        REQUIRE(std::isnan(value));
        REQUIRE(is_nan_code(back, type));
        REQUIRE((back & sign_bit) == (code & sign_bit));
      }
    }
  }
}

TEST_CASE("16-bit NaNs keep their sign and payload and become quiet") {
  for (const std::uint32_t code : {0x7C01u, 0x7E00u, 0x7FFFu, 0xFC01u, 0xFEABu}) {
    const float value = onnxpress::half_to_float(static_cast<std::uint16_t>(code));
    CHECK(onnxpress::float_to_half(value) == (code | 0x200));
    CHECK(cast_one(std::bit_cast<float>(0x7F800001u), DType::float16) == 0x7E00);
  }
  CHECK(onnxpress::float_to_bfloat16(std::bit_cast<float>(0x7F800001u)) == 0x7FC0);
  CHECK(onnxpress::float_to_bfloat16(std::bit_cast<float>(0xFF810000u)) == 0xFFC1);
  CHECK(onnxpress::float_to_bfloat16(std::bit_cast<float>(0xFFFFFFFFu)) == 0xFFFF);
}

TEST_CASE("encoding rounds to nearest, ties to even: all midpoints and their neighbours") {
  for (const DType type : narrow_floats) {
    CAPTURE(onnxpress::name(type));
    const std::vector<long double>& values = values_of(type);
    for (std::size_t i = 0; i + 1 < values.size(); ++i) {
      const auto middle = static_cast<double>((values[i] + values[i + 1]) / 2);
      for (const double x : {middle, std::nextafter(middle, 0.0), std::nextafter(middle, 1e300)}) {
        for (const bool saturate : {false, true}) {
          REQUIRE(cast_one(x, type, saturate) == encode_slowly(x, type, saturate));
          REQUIRE(cast_one(-x, type, saturate) == encode_slowly(-x, type, saturate));
        }
      }
      const auto single = static_cast<float>(middle);
      for (const float x : {single, std::nextafter(single, 0.0f), std::nextafter(single, inf)})
        REQUIRE(cast_one(x, type) == encode_slowly(x, type, true));
    }
  }
}

TEST_CASE("encoding random floats of all magnitudes agrees with the reference") {
  onnxpress::Random random(1);
  for (const DType type : narrow_floats) {
    CAPTURE(onnxpress::name(type));
    for (int i = 0; i < 20000; ++i) {
      const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(random.next()));
      const bool saturate = i % 2 == 0;
      const std::uint64_t code = cast_one(x, type, saturate);
      if (std::isnan(x) && type != DType::float4e2m1)
        REQUIRE(is_nan_code(code, type));
      else
        REQUIRE(code == encode_slowly(x, type, saturate));
    }
  }
}

TEST_CASE("Cast's float8 tables") {
  struct Row {
    float value;
    bool saturate;
    std::uint8_t e4m3fn, e4m3fnuz, e5m2, e5m2fnuz;
  };
  const std::vector<Row> rows = {
      {0.0f, true, 0x00, 0x00, 0x00, 0x00},      {-0.0f, true, 0x80, 0x00, 0x80, 0x00},
      {quiet_nan, true, 0x7F, 0x80, 0x7E, 0x80}, {-quiet_nan, true, 0xFF, 0x80, 0xFE, 0x80},
      {inf, true, 0x7E, 0x7F, 0x7B, 0x7F},       {-inf, true, 0xFE, 0xFF, 0xFB, 0xFF},
      {1e6f, true, 0x7E, 0x7F, 0x7B, 0x7F},      {-1e6f, true, 0xFE, 0xFF, 0xFB, 0xFF},
      {-0.0f, false, 0x80, 0x00, 0x80, 0x00},    {quiet_nan, false, 0x7F, 0x80, 0x7E, 0x80},
      {inf, false, 0x7F, 0x80, 0x7C, 0x80},      {-inf, false, 0xFF, 0x80, 0xFC, 0x80},
      {1e6f, false, 0x7F, 0x80, 0x7C, 0x80},     {-1e6f, false, 0xFF, 0x80, 0xFC, 0x80},
      {-1e-20f, false, 0x80, 0x00, 0x80, 0x00},
  };
  for (const Row& row : rows) {
    CAPTURE(row.value);
    CAPTURE(row.saturate);
    const auto encode = [&](DType type) {
      return onnxpress::float_to_minifloat(row.value, type, row.saturate);
    };
    CHECK(encode(DType::float8e4m3fn) == row.e4m3fn);
    CHECK(encode(DType::float8e4m3fnuz) == row.e4m3fnuz);
    CHECK(encode(DType::float8e5m2) == row.e5m2);
    CHECK(encode(DType::float8e5m2fnuz) == row.e5m2fnuz);
  }
  // [x] > FLT_MAX is decided after rounding to the mantissa's width.
  CHECK(onnxpress::float_to_minifloat(464, DType::float8e4m3fn, false) == 0x7E);
  CHECK(onnxpress::float_to_minifloat(464.1f, DType::float8e4m3fn, false) == 0x7F);
  CHECK(onnxpress::float_to_minifloat(61439, DType::float8e5m2, false) == 0x7B);
  CHECK(onnxpress::float_to_minifloat(61440, DType::float8e5m2, false) == 0x7C);
}

TEST_CASE("float4e2m1 has eight magnitudes, saturates, and makes 6 of NaN") {
  const std::vector<float> magnitudes = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (std::uint8_t code = 0; code < 8; ++code) {
    CHECK(onnxpress::minifloat_to_float(code, DType::float4e2m1) == magnitudes[code]);
    CHECK(onnxpress::minifloat_to_float(code | 0xF8, DType::float4e2m1) == -magnitudes[code]);
  }
  const auto encode = [](float value) {
    return onnxpress::float_to_minifloat(value, DType::float4e2m1, false);
  };
  CHECK(encode(0.25f) == 0);
  CHECK(encode(0.75f) == 2);
  CHECK(encode(-2.5f) == 0xC);
  CHECK(encode(5.0f) == 6);
  CHECK(encode(-0.0f) == 8);
  CHECK(encode(inf) == 7);
  CHECK(encode(-1e9f) == 15);
  CHECK(encode(quiet_nan) == 7);
  CHECK(encode(-quiet_nan) == 7);
}

TEST_CASE("float8e8m0 holds powers of two") {
  for (std::uint32_t code = 0; code < 255; ++code) {
    const float value =
        onnxpress::minifloat_to_float(static_cast<std::uint8_t>(code), DType::float8e8m0);
    REQUIRE(value == std::ldexp(1.0f, static_cast<int>(code) - 127));
    for (const auto rounding : {ScaleRounding::up, ScaleRounding::down, ScaleRounding::nearest}) {
      REQUIRE(onnxpress::float_to_minifloat(value, DType::float8e8m0, false, rounding) == code);
      REQUIRE(onnxpress::float_to_minifloat(-value, DType::float8e8m0, false, rounding) == code);
    }
  }
  CHECK(std::isnan(onnxpress::minifloat_to_float(0xFF, DType::float8e8m0)));

  struct Row {
    double value;
    int up, down, nearest, unsaturated;  // unsaturated: rounded up
  };
  const std::vector<Row> rows = {
      {1.1, 128, 127, 127, 128},   {1.5, 128, 127, 128, 128},     {1.9, 128, 127, 128, 128},
      {0x1p-127, 0, 0, 0, 0},      {0x1.8p-127, 1, 0, 1, 1},      {0x1p-130, 0, 0, 0, 255},
      {0.0, 0, 0, 0, 255},         {0x1p127, 254, 254, 254, 254}, {0x1.1p127, 254, 254, 254, 255},
      {1e300, 254, 254, 254, 255}, {inf, 254, 254, 254, 255},     {quiet_nan, 255, 255, 255, 255},
  };
  for (const Row& row : rows) {
    CAPTURE(row.value);
    const auto encode = [&](bool saturate, ScaleRounding rounding) {
      return static_cast<int>(cast_one(row.value, DType::float8e8m0, saturate, rounding));
    };
    CHECK(encode(true, ScaleRounding::up) == row.up);
    CHECK(encode(true, ScaleRounding::down) == row.down);
    CHECK(encode(true, ScaleRounding::nearest) == row.nearest);
    CHECK(encode(false, ScaleRounding::up) == row.unsaturated);
  }
}

TEST_CASE("float64 and 64-bit integers are rounded once") {
  // Each is just above a tie of the target, and on it once rounded to float32 (or float64).
  CHECK(cast_one(1 + 0x1p-11 + 0x1p-40, DType::float16) == 0x3C01);
  CHECK(cast_one(1 + 0x1p-8 + 0x1p-40, DType::bfloat16) == 0x3F81);
  CHECK(cast_one(1 + 0x1p-4 + 0x1p-40, DType::float8e4m3fn) == 0x39);
  CHECK(cast_one(1.25 + 0x1p-40, DType::float4e2m1) == 3);
  CHECK(cast_one(0x1p-25 + 0x1p-70, DType::float16) == 1);
  const std::int64_t tie = (std::int64_t{1} << 62) + (std::int64_t{1} << 54);
  CHECK(cast_one(tie, DType::bfloat16) == 0x5E80);
  CHECK(cast_one(tie + 1, DType::bfloat16) == 0x5E81);
  CHECK(cast_one(-tie - 1, DType::bfloat16) == 0xDE81);
  CHECK(cast_one(static_cast<std::uint64_t>(tie) + 1, DType::bfloat16) == 0x5E81);
  CHECK(cast_one((std::int64_t{1} << 53) + (std::int64_t{1} << 29) + 1, DType::float32) ==
        0x5A000001);
}

TEST_CASE("integers out of range keep their low bits") {
  CHECK(cast_one(std::int16_t{200}, DType::int8) == 0xC8);  // -56, the specification's example
  CHECK(cast_one(std::int32_t{-9}, DType::int4) == 7);
  CHECK(cast_one(std::int64_t{-1}, DType::uint32) == 0xFFFFFFFF);
  CHECK(cast_one(~std::uint64_t{0}, DType::int64) == ~std::uint64_t{0});
  CHECK(cast_one(std::uint8_t{5}, DType::uint2) == 1);
}

TEST_CASE("floats become integers by truncation; out of range as on x86-64") {
  CHECK(cast_one(-1.9f, DType::int8) == 0xFF);
  CHECK(cast_one(1.9f, DType::int4) == 1);
  CHECK(cast_one(-0.9f, DType::uint8) == 0);
  // ONNX's own cases for Cast to 4-bit types count from -9.
  CHECK(cast_one(-9.0f, DType::int4) == 7);
  CHECK(cast_one(-9.0f, DType::uint4) == 7);
  CHECK(cast_one(300.0f, DType::uint8) == 44);
  CHECK(cast_one(1e10f, DType::uint8) == 0);
  CHECK(cast_one(1e10f, DType::int32) == 0x80000000);
  CHECK(cast_one(1e10, DType::uint32) == 1410065408);
  CHECK(cast_one(1e10f, DType::int64) == 10000000000);
  CHECK(cast_one(1e19, DType::uint64) == 10000000000000000000u);
  CHECK(cast_one(-1.0, DType::uint64) == ~std::uint64_t{0});
  CHECK(cast_one(quiet_nan, DType::int64) == std::uint64_t{1} << 63);
  CHECK(cast_one(quiet_nan, DType::int8) == 0);
  CHECK(cast_one(-inf, DType::int32) == 0x80000000);
}

TEST_CASE("bool is not zero") {
  CHECK(cast_one(0.0f, DType::boolean) == 0);
  CHECK(cast_one(-0.0f, DType::boolean) == 0);
  CHECK(cast_one(0.1f, DType::boolean) == 1);
  CHECK(cast_one(quiet_nan, DType::boolean) == 1);
  CHECK(cast_one(std::int32_t{256}, DType::boolean) == 1);
  const std::byte seven{7};
  std::byte flag{0};
  convert_elements(DType::boolean, &seven, DType::boolean, &flag, 1);
  CHECK(flag == std::byte{1});
}

TEST_CASE("packed elements are kept low bits first") {
  std::vector<std::byte> data(3, std::byte{0xFF});
  onnxpress::set_packed(data.data(), DType::int4, 0, 0x1);
  onnxpress::set_packed(data.data(), DType::int4, 3, 0xF2);  // high bits are ignored
  CHECK(data == std::vector{std::byte{0xF1}, std::byte{0x2F}, std::byte{0xFF}});
  CHECK(onnxpress::get_packed(data.data(), DType::uint4, 3) == 2);
  onnxpress::set_packed(data.data(), DType::uint2, 9, 0);
  CHECK(data[2] == std::byte{0xF3});
  CHECK(onnxpress::get_packed(data.data(), DType::int2, 8) == 3);
  CHECK(onnxpress::get_packed(data.data(), DType::int2, 9) == 0);
}

TEST_CASE("every pair of types, unaligned, over several blocks, against one element at a time") {
  onnxpress::Random random(2);
  constexpr std::size_t count = 1203;
  std::vector<std::byte> source(count * 8 + 1);
  std::vector<std::byte> target(count * 8 + 2);
  for (const DType from : numbers) {
    for (std::byte& byte : source) byte = static_cast<std::byte>(random.next());
    for (std::size_t i = 0; i < count / 2 && onnxpress::bits(from) == 64; ++i) {
      // Half of the wide values within the reach of the narrow types.
      const double small = random.normal() * 200;
      const std::int64_t integer = static_cast<std::int64_t>(small);
      std::memcpy(source.data() + 1 + 8 * i,
                  from == DType::float64 ? static_cast<const void*>(&small) : &integer, 8);
    }
    for (const DType to : numbers) {
      CAPTURE(onnxpress::name(from));
      CAPTURE(onnxpress::name(to));
      for (const bool saturate : {true, false}) {
        std::fill(target.begin(), target.end(), std::byte{0xA5});
        convert_elements(from, source.data() + 1, to, target.data() + 1, count, saturate);
        for (std::size_t i = 0; i < count; ++i) {
          const std::uint64_t code = code_at(source.data() + 1, from, i);
          const long double value = value_of_code(code, from);
          const bool reads_nan = is_nan_code(code, from);
          const std::uint64_t got = code_at(target.data() + 1, to, i);
          const std::uint64_t expected =
              from == to && from != DType::boolean
                  ? code
                  : cast_slowly(value, onnxpress::is_float(from), to, saturate);
          if (reads_nan && onnxpress::is_float(to) && to != DType::float4e2m1)
            REQUIRE(is_nan_code(got, to));
          else
            REQUIRE_MESSAGE(got == expected, "value ", static_cast<double>(value));
        }
        const std::size_t written = onnxpress::packed_bytes(to, count);
        REQUIRE(target[0] == std::byte{0xA5});
        REQUIRE(target[1 + written] == std::byte{0xA5});
        if (onnxpress::is_sub_byte(to)) {
          const std::size_t used = count * static_cast<std::size_t>(onnxpress::bits(to)) % 8;
          REQUIRE((std::to_integer<int>(target[written]) >> used) == 0);
        }
      }
    }
  }
}

TEST_CASE("strings and complex numbers are refused, complex copies are not") {
  std::vector<std::byte> source(32), target(32);
  const auto convert = [&](DType from, DType to) {
    convert_elements(from, source.data(), to, target.data(), 1);
  };
  CHECK_THROWS_WITH_AS(convert(DType::string, DType::float32), "cannot convert string to float32",
                       onnxpress::Error);
  CHECK_THROWS_AS(convert(DType::string, DType::string), onnxpress::Error);
  CHECK_THROWS_AS(convert(DType::complex64, DType::complex128), onnxpress::Error);
  CHECK_THROWS_AS(convert(DType::complex64, DType::float32), onnxpress::Error);
  CHECK_THROWS_AS(convert(DType::float32, DType::complex64), onnxpress::Error);
  CHECK_THROWS_AS(convert(DType::undefined, DType::float32), onnxpress::Error);
  source[15] = std::byte{9};
  convert(DType::complex128, DType::complex128);
  CHECK(target == source);
  CHECK_THROWS_AS(onnxpress::float_to_minifloat(1, DType::float16), onnxpress::Error);
  CHECK_THROWS_AS(onnxpress::minifloat_to_float(1, DType::int8), onnxpress::Error);
}
