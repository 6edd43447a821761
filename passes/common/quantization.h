// Quantization grids: codes of a type, scales and zero points, rounding onto them.
//
// q = clamp(round(x / scale) + zero_point, min, max) with ties to even, x' = (q - zero_point) * scale:
// QuantizeLinear and DequantizeLinear of ONNX. Codes of float types (float8, float4e2m1) are the bits
// of the float nearest to x / scale, saturated; their zero point is 0.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "graph/base/dtype.h"
#include "graph/base/threads.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

// The levels of one bit width and the type that stores them.
struct QuantizedType {
  int bits = 8;
  bool symmetric = true;
  DType storage = DType::int8;
  // Of a symmetric grid, the most negative code as well: worth a level where a method chooses scales and codes
  // by the error they make. Scales that cover a range leave it alone.
  bool all_codes = false;

  // Symmetric grids otherwise leave the most negative code out, so that they have a zero in the middle:
  // [-(2^(b-1) - 1), 2^(b-1) - 1]. Asymmetric ones use all codes: [0, 2^b - 1], or
  // [-2^(b-1), 2^(b-1) - 1] in a signed type. Integer types only.
  std::int64_t min() const;
  std::int64_t max() const;
  // Codes are floats: `bits` are those of the type, and levels are not evenly spaced.
  bool has_float_codes() const { return is_float(storage); }
  // The largest number of steps of the scale that a code stands for (448 of float8e4m3fn).
  float largest() const;
};

struct QuantizationParameters {
  float scale = 1.0F;
  std::int64_t zero_point = 0;
};

// Scale and zero point that cover [low, high] (widened to hold zero, which stays exact). The scale
// is a normal number, 1 for an all-zero range; no code dequantizes to infinity. low and high are finite.
QuantizationParameters min_max_parameters(float low, float high, const QuantizedType& type);

std::int64_t quantize(float value, const QuantizationParameters& parameters, const QuantizedType& type);
// The scale of `parameters` as a number of `stored`, the type of the scales (float8e8m0: rounded up):
// never zero nor infinity, and no code dequantizes to infinity.
float storable_scale(const QuantizationParameters& parameters, const QuantizedType& type, DType stored);
// The least power of two that is not below a positive scale, within what float8e8m0 and normal floats hold.
float power_of_two_above(float scale);

// The most steps that a code is away from the zero point.
float farthest_code(const QuantizationParameters& parameters, const QuantizedType& type);
// Of integer types; the second of any type.
float dequantize(std::int64_t code, const QuantizationParameters& parameters);
float dequantize(std::int64_t code, const QuantizationParameters& parameters, const QuantizedType& type);

// Which elements of a weight share a scale.
struct Granularity {
  enum class Kind {
    tensor,
    channel,  // those of one slice of `axis`
    block,    // `block` neighbours along `axis`, the last block being shorter where it must
  };
  Kind kind = Kind::tensor;
  std::int64_t axis = 0;   // not negative
  std::int64_t block = 0;  // elements

  static Granularity per_tensor() { return {}; }
  static Granularity per_channel(std::int64_t axis) { return {Kind::channel, axis, 0}; }
  static Granularity per_block(std::int64_t axis, std::int64_t block) { return {Kind::block, axis, block}; }

  // Dims of the scales of a weight of these dims: [] per tensor, [channels] per channel, those of the
  // weight with `axis` divided by the block (rounded up) in blocks.
  Dims scale_dims(const Dims& weight) const;
  bool operator==(const Granularity&) const = default;
};

// Which scale belongs to which element: calls fn(group, begin, count) for every run of neighbours
// of one scale, in memory order.
template <class F>
void for_each_scale_run(const Dims& weight, const Granularity& granularity, const F& fn);

// The scales of a weight, before it is rounded.
struct WeightGrid {
  QuantizedType type;
  Granularity granularity;
  DType scale_type = DType::float32;  // the scales are numbers of this type, times outer_scale
  float outer_scale = 1;              // other than 1: of the tensor (NVFP4)
  std::vector<QuantizationParameters> parameters;  // row-major over scale_dims()
};

// A weight on its grid.
struct QuantizedTensor {
  Tensor codes;          // storage type, dims of the weight
  Tensor scale;          // dims of granularity.scale_dims()
  Tensor zero_point;     // storage type, dims of scale; undefined when symmetric
  Tensor outer_scale;    // float32 scalar that every scale is multiplied with; undefined: 1
  Granularity granularity;
  double snr_db = 0;     // of the dequantized weight; inf when exact
  std::int64_t zeros = 0;  // elements that are exactly zero after dequantization
  std::int64_t clipped = 0;  // elements half a step or more outside the levels
};

// What a grid is chosen with.
struct GridOptions {
  // undefined: the weight's element type. float8e8m0: powers of two, and for blocks of float codes
  // the least exponent that covers the block or one less, whichever rounds it with less squared error
  // (one of the two is that of the Open Compute Microscaling Formats specification 1.0, section 6.3).
  // float8e4m3fn: times a float32 scale of the whole tensor, as in NVFP4 (NVIDIA, "Pretraining Large
  // Language Models with NVFP4", arXiv 2509.25149).
  DType scale_type = DType::undefined;
  bool power_of_two = false;            // scales are powers of two, rounded up
};

// Grids that cover the smallest and largest element of every group. Nothing when the float32,
// float16, bfloat16 or float64 weight holds NaN or infinity. `pool` may be nullptr: one thread.
std::optional<WeightGrid> min_max_grid(const Tensor& weight, const QuantizedType& type,
                                       const Granularity& granularity, const GridOptions& options = {},
                                       ThreadPool* pool = nullptr);

// Every element on the nearest level. No more than a few pages of floats are copied, and pages of a
// mapped file are given back afterwards.
QuantizedTensor round_to_nearest(const Tensor& weight, const WeightGrid& grid, ThreadPool* pool = nullptr);
// Codes as chosen (row-major, one per element, within the type's levels; bits of float codes).
QuantizedTensor with_codes(const Tensor& weight, const WeightGrid& grid,
                           std::span<const std::int32_t> codes);

template <class F>
void for_each_scale_run(const Dims& weight, const Granularity& granularity, const F& fn) {
  std::int64_t outer = 1, inner = 1, extent = 1;
  const auto axis = static_cast<std::size_t>(granularity.axis);
  if (granularity.kind == Granularity::Kind::tensor) {
    for (const std::int64_t dim : weight) inner *= dim;
    if (inner > 0) fn(std::int64_t{0}, std::int64_t{0}, inner);
    return;
  }
  for (std::size_t i = 0; i < weight.size(); ++i) (i < axis ? outer : i == axis ? extent : inner) *= weight[i];
  if (outer * extent * inner == 0) return;
  if (granularity.kind == Granularity::Kind::channel) {
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t a = 0; a < extent; ++a) fn(a, (o * extent + a) * inner, inner);
    return;
  }
  const std::int64_t blocks = (extent + granularity.block - 1) / granularity.block;
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t a = 0; a < extent; ++a) {
      const std::int64_t group = (o * blocks + a / granularity.block) * inner;
      const std::int64_t begin = (o * extent + a) * inner;
      if (inner == 1) {
        const std::int64_t count = std::min(granularity.block, extent - a);
        fn(group, begin, count);
        a += count - 1;
      } else {
        for (std::int64_t i = 0; i < inner; ++i) fn(group + i, begin + i, std::int64_t{1});
      }
    }
}

}  // namespace onnxpress
