// Conversion between element types, bit-exact with ONNX's Cast, and packed sub-byte access.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/base/dtype.h"

namespace onnxpress {

// Cast's round_mode, which applies to float8e8m0 only: away from zero, toward zero, or to nearest
// with ties away from zero.
enum class ScaleRounding { up, down, nearest };

// Scalar codecs; round to nearest, ties to even. `saturate` follows Cast's attribute: out-of-range
// values become the largest finite value (true) or inf/NaN (false). NaN becomes 6 in float4e2m1,
// which always saturates. float8e8m0 ignores the sign.
std::uint16_t float_to_half(float value);
float half_to_float(std::uint16_t bits);
std::uint16_t float_to_bfloat16(float value);
float bfloat16_to_float(std::uint16_t bits);
// `type` is one of the float8 types, float8e8m0 or float4e2m1 (low 4 bits).
std::uint8_t float_to_minifloat(float value, DType type, bool saturate = true,
                                ScaleRounding rounding = ScaleRounding::up);
float minifloat_to_float(std::uint8_t bits, DType type);

// Element `index` of packed 4-bit or 2-bit data: low bits first, as ONNX packs.
std::uint8_t get_packed(const std::byte* data, DType type, std::size_t index);
void set_packed(std::byte* data, DType type, std::size_t index, std::uint8_t code);

// Converts `count` elements as ONNX Cast (opset 25) does: float to integer truncates toward zero,
// to bool is "not zero", every float is rounded once. Integers out of range keep their low bits.
// Floats out of an integer's range, undefined in the specification, give what ONNX's reference and
// ONNX Runtime give on x86-64: types of at most 16 bits keep the low bits of the int32 value,
// uint32 those of the int64 value, and what int32 or int64 cannot hold (also NaN) becomes its
// smallest value. Nothing saturates there: clamp first where that is meant.
// Buffers are packed; they may be unaligned and must not overlap. Throws Error for string and for
// complex from or to anything else.
void convert_elements(DType from, const std::byte* source, DType to, std::byte* target,
                      std::size_t count, bool saturate = true,
                      ScaleRounding rounding = ScaleRounding::up);

}  // namespace onnxpress
