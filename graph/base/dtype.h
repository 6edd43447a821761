// Element types, numbered as TensorProto.DataType of ONNX 1.22.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace onnxpress {

enum class DType : std::int32_t {
  undefined = 0,
  float32 = 1,
  uint8 = 2,
  int8 = 3,
  uint16 = 4,
  int16 = 5,
  int32 = 6,
  int64 = 7,
  string = 8,
  boolean = 9,
  float16 = 10,
  float64 = 11,
  uint32 = 12,
  uint64 = 13,
  complex64 = 14,
  complex128 = 15,
  bfloat16 = 16,
  float8e4m3fn = 17,
  float8e4m3fnuz = 18,
  float8e5m2 = 19,
  float8e5m2fnuz = 20,
  uint4 = 21,
  int4 = 22,
  float4e2m1 = 23,
  float8e8m0 = 24,
  uint2 = 25,
  int2 = 26,
};

// True for the numbers above except undefined.
bool is_known(DType type);
// "float32", "int4", "bool", ...: the name used in every message and report ("undefined",
// "type(99)" otherwise). The text lives as long as the program.
std::string_view name(DType type);
// The inverse of name(); also accepts ONNX's spellings in either case ("FLOAT", "double").
std::optional<DType> dtype_from_name(std::string_view text);
// Bits of one element; 0 for string and unknown types.
int bits(DType type);
// Bytes that `count` elements take packed as ONNX packs them: ceil(count * bits / 8). Throws Error
// when that overflows.
std::size_t packed_bytes(DType type, std::size_t count);
// First ONNX IR version and ai.onnx opset in which the type exists.
int first_ir_version(DType type);
int first_opset(DType type);

bool is_float(DType type);           // float16/32/64, bfloat16, fp8 of all kinds, fp4, e8m0
bool is_integer(DType type);         // signed and unsigned integers of all widths, bool excluded
bool is_signed_integer(DType type);
bool is_sub_byte(DType type);        // 4-bit and 2-bit types
bool is_complex(DType type);

// Smallest and largest value of an integer type. Throws Error for other types.
std::int64_t integer_min(DType type);
std::int64_t integer_max(DType type);  // uint64: clipped to INT64_MAX

// The DType of a C++ element type (float, double, (u)int8..64, bool).
template <class T> struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = DType::float32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::float64; };
template <> struct DTypeOf<std::int8_t> { static constexpr DType value = DType::int8; };
template <> struct DTypeOf<std::uint8_t> { static constexpr DType value = DType::uint8; };
template <> struct DTypeOf<std::int16_t> { static constexpr DType value = DType::int16; };
template <> struct DTypeOf<std::uint16_t> { static constexpr DType value = DType::uint16; };
template <> struct DTypeOf<std::int32_t> { static constexpr DType value = DType::int32; };
template <> struct DTypeOf<std::uint32_t> { static constexpr DType value = DType::uint32; };
template <> struct DTypeOf<std::int64_t> { static constexpr DType value = DType::int64; };
template <> struct DTypeOf<std::uint64_t> { static constexpr DType value = DType::uint64; };
template <> struct DTypeOf<bool> { static constexpr DType value = DType::boolean; };
template <class T> inline constexpr DType dtype_of = DTypeOf<T>::value;

}  // namespace onnxpress
