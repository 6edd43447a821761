// Loops on 8-bit codes, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstdint>

namespace onnxpress {

// Codes are bytes xor `flip`: 0x80 for int8, whose numbers plus 128 they are then, as is
// `zero_point`.
struct CodeFormat {
  float scale = 1;
  std::int32_t zero_point = 0;
  std::uint8_t flip = 0;
};

// codes[i] = round(values[i] / scale) + zero point, ties to even, saturated; NaN gives code 0.
void quantize_loop(const float* values, std::uint8_t* codes, std::int64_t count,
                   const CodeFormat& format);
// values[i] = (codes[i] - zero point) * scale.
void dequantize_loop(const std::uint8_t* codes, float* values, std::int64_t count,
                     const CodeFormat& format);
// y[i] = quantized(a[i] + b[i]); y may be a or b.
void add_codes_loop(const std::uint8_t* a, const CodeFormat& a_format, const std::uint8_t* b,
                    const CodeFormat& b_format, std::uint8_t* y, const CodeFormat& y_format,
                    std::int64_t count);

// The smallest and largest value, and 0; NaN counts for neither.
struct FloatRange {
  float low = 0, high = 0;
};
FloatRange range_loop(const float* values, std::int64_t count);

// What makes floats of one row of integer sums of products: for every column
// (sum - zero_point * column_sums - row_sum * column_zeros) * (scale * column_scales) + bias.
struct SumScaling {
  std::int32_t zero_point = 0, row_sum = 0;
  float scale = 1;
  const std::int32_t* column_sums = nullptr;
  const std::int32_t* column_zeros = nullptr;  // nullptr: zero
  const float* column_scales = nullptr;
  const float* bias = nullptr;  // nullptr: zero
};
// `values` may be at the place of `sums`.
void scale_sums_loop(const std::int32_t* sums, float* values, std::int64_t count, const SumScaling& scaling);

}  // namespace onnxpress
