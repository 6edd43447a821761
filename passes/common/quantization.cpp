#include "passes/common/quantization.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/convert.h"

namespace onnxpress {
namespace {

// Exponents that float32 has as normal numbers and float8e8m0 holds.
constexpr int least_exponent = -126, most_exponent = 127;

float nearest(float value, DType type) {
  if (type == DType::float16) return half_to_float(float_to_half(value));
  if (type == DType::bfloat16) return bfloat16_to_float(float_to_bfloat16(value));
  return value;
}

// Rounds a scale to the type it will be stored in, never to zero or infinity. float16 has too short a
// range for normal numbers only; its subnormal ones are rounded up, so that they still cover the range.
float rounded_scale(float scale, DType type) {
  if (type == DType::float8e8m0) return power_of_two_above(scale);
  if (type == DType::float16 && scale < 0x1p-14F) return std::max(std::ceil(scale * 0x1p24F), 1.0F) * 0x1p-24F;
  const float largest = type == DType::float16 ? 65504.0F : std::numeric_limits<float>::max();
  return nearest(std::clamp(scale, std::numeric_limits<float>::min(), largest), type);
}

}  // namespace

float power_of_two_above(float scale) {
  int exponent = 0;
  const float fraction = std::frexp(scale, &exponent);
  return std::ldexp(1.0F, std::clamp(fraction > 0.5F ? exponent : exponent - 1, least_exponent, most_exponent));
}

float storable_scale(const QuantizationParameters& parameters, const QuantizedType& type, DType stored) {
  float scale = rounded_scale(parameters.scale, stored);
  const float step = stored == DType::bfloat16 ? 0x1p-8F : 0x1p-11F;  // half a unit in the last place or more
  while (!std::isfinite(nearest(scale * farthest_code(parameters, type), stored)))
    scale = stored == DType::float8e8m0 ? scale / 2 : nearest(scale * (1 - step), stored);
  return scale;
}

std::int64_t QuantizedType::min() const {
  if (symmetric) return -((std::int64_t{1} << (bits - 1)) - (all_codes ? 0 : 1));
  return is_signed_integer(storage) ? -(std::int64_t{1} << (bits - 1)) : 0;
}

std::int64_t QuantizedType::max() const {
  const bool half = symmetric || is_signed_integer(storage);
  return half ? (std::int64_t{1} << (bits - 1)) - 1 : (std::int64_t{1} << bits) - 1;
}

float QuantizedType::largest() const {
  if (!has_float_codes()) return static_cast<float>(max());
  return minifloat_to_float(float_to_minifloat(std::numeric_limits<float>::max(), storage), storage);
}

float farthest_code(const QuantizationParameters& parameters, const QuantizedType& type) {
  if (type.has_float_codes()) return type.largest();
  return static_cast<float>(std::max(type.max() - parameters.zero_point, parameters.zero_point - type.min()));
}

QuantizationParameters min_max_parameters(float low, float high, const QuantizedType& type) {
  low = std::min(low, 0.0F);
  high = std::max(high, 0.0F);
  if (low == high) return {};
  // In double: high - low may overflow float.
  const bool centered = type.symmetric || type.has_float_codes();
  const double width = centered ? 2.0 * std::max(-static_cast<double>(low), static_cast<double>(high))
                                : static_cast<double>(high) - static_cast<double>(low);
  const double steps = type.has_float_codes() ? 2.0 * static_cast<double>(type.largest())
                       : type.symmetric       ? 2.0 * static_cast<double>(type.max())
                                              : static_cast<double>(type.max() - type.min());
  const double scale = width / steps;
  QuantizationParameters parameters{.scale = std::max(static_cast<float>(scale), std::numeric_limits<float>::min())};
  if (!centered) {
    const double zero = static_cast<double>(type.min()) - static_cast<double>(low) / parameters.scale;
    parameters.zero_point = std::clamp(static_cast<std::int64_t>(std::nearbyint(zero)), type.min(), type.max());
  }
  // At the end of float's range the outermost codes may be rounded to infinity.
  while (!std::isfinite(parameters.scale * farthest_code(parameters, type)))
    parameters.scale = std::nextafter(parameters.scale, 0.0F);
  return parameters;
}

std::int64_t quantize(float value, const QuantizationParameters& parameters, const QuantizedType& type) {
  if (type.has_float_codes()) return float_to_minifloat(value / parameters.scale, type.storage);
  const float rounded = std::nearbyint(value / parameters.scale) + static_cast<float>(parameters.zero_point);
  return static_cast<std::int64_t>(
      std::clamp(rounded, static_cast<float>(type.min()), static_cast<float>(type.max())));
}

float dequantize(std::int64_t code, const QuantizationParameters& parameters) {
  return static_cast<float>(code - parameters.zero_point) * parameters.scale;
}

float dequantize(std::int64_t code, const QuantizationParameters& parameters, const QuantizedType& type) {
  if (!type.has_float_codes()) return dequantize(code, parameters);
  return minifloat_to_float(static_cast<std::uint8_t>(code), type.storage) * parameters.scale;
}

Dims Granularity::scale_dims(const Dims& weight) const {
  if (kind == Kind::tensor) return {};
  const auto along = static_cast<std::size_t>(axis);
  if (kind == Kind::channel) return {weight[along]};
  Dims dims = weight;
  dims[along] = (dims[along] + block - 1) / block;
  return dims;
}

}  // namespace onnxpress
