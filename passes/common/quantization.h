// Quantization grids: integers of a bit width, scales and zero points, rounding onto them.
//
// q = clamp(round(x / scale) + zero_point, min, max) with ties to even, x' = (q - zero_point) * scale:
// QuantizeLinear and DequantizeLinear of ONNX.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "graph/base/dtype.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

// The levels of one bit width and the type that stores them.
struct QuantizedType {
  int bits = 8;
  bool symmetric = true;
  DType storage = DType::int8;

  // Symmetric grids leave the most negative code out, so that they have a zero in the middle:
  // [-(2^(b-1) - 1), 2^(b-1) - 1]. Asymmetric ones use [0, 2^b - 1].
  std::int64_t min() const;
  std::int64_t max() const;
};

struct QuantizationParameters {
  float scale = 1.0F;
  std::int64_t zero_point = 0;
};

// Scale and zero point that cover [low, high] (widened to hold zero, which stays exact). The scale
// is a normal number, 1 for an all-zero range; no code dequantizes to infinity. low and high are finite.
QuantizationParameters min_max_parameters(float low, float high, const QuantizedType& type);

std::int64_t quantize(float value, const QuantizationParameters& parameters, const QuantizedType& type);
float dequantize(std::int64_t code, const QuantizationParameters& parameters);

// A weight on its grid.
struct QuantizedTensor {
  Tensor codes;          // storage type, dims of the weight
  Tensor scale;          // element type of the weight; [] per tensor, [channels] per channel
  Tensor zero_point;     // storage type, dims of scale; undefined when symmetric
  std::int64_t axis = -1;  // -1: per tensor
  double snr_db = 0;     // of the dequantized weight; inf when exact
  std::int64_t zeros = 0;  // elements that are exactly zero after dequantization
};

// Rounds a float32, float16, bfloat16 or float64 weight to nearest on min-max grids, one for the
// tensor or one per slice of `axis`. Nothing when it holds NaN or infinity. Scales are rounded to
// the weight's element type before codes are chosen, so that codes fit the scale that is stored.
std::optional<QuantizedTensor> quantize_min_max(const Tensor& weight, const QuantizedType& type,
                                                std::optional<std::int64_t> axis);

}  // namespace onnxpress
