// Weights on their grids.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "graph/base/convert.h"
#include "graph/onnx/mapped_pages.h"
#include "passes/common/quantization.h"
#include "passes/common/rounding_loops.h"
#include "passes/common/scale_rows.h"
#include "passes/common/weight_pieces.h"

namespace onnxpress {
namespace {

// Scales and zero points of a grid, each by themselves and as floats.
struct GridRows {
  std::vector<float> scale, zero;

  explicit GridRows(const WeightGrid& grid) {
    scale.reserve(grid.parameters.size());
    zero.reserve(grid.parameters.size());
    for (const QuantizationParameters& p : grid.parameters) {
      scale.push_back(p.scale);
      zero.push_back(static_cast<float>(p.zero_point));
    }
  }
};

// Scale and zero point of every element of a piece.
struct PieceScales {
  std::vector<float> scale, zero;

  void fill(const ScaleRows& rows, const GridRows& grid, std::int64_t begin, std::int64_t count) {
    scale.resize(static_cast<std::size_t>(count));
    zero.resize(static_cast<std::size_t>(count));
    rows.each(begin, begin + count, [&](std::int64_t first, std::int64_t step, std::int64_t at, std::int64_t n) {
      float* const scales = scale.data() + (at - begin);
      float* const zeros = zero.data() + (at - begin);
      const auto from = static_cast<std::size_t>(first);
      if (step == 0) {
        std::fill_n(scales, n, grid.scale[from]);
        std::fill_n(zeros, n, grid.zero[from]);
        return;
      }
      std::copy_n(grid.scale.data() + from, n, scales);
      std::copy_n(grid.zero.data() + from, n, zeros);
    });
  }
};

// Codes of one byte each to packed ones, at element `begin`, a multiple of the codes in a byte.
template <class T>
void pack(const T* codes, std::int64_t begin, std::int64_t count, DType type, std::byte* target) {
  const auto width = static_cast<unsigned>(bits(type));
  const unsigned mask = (1U << width) - 1;
  const std::int64_t per_byte = 8 / width;
  target += begin / per_byte;
  if (width == 4) {  // in pairs, which compilers make vectors of
    std::int64_t i = 0;
    for (; i + 1 < count; i += 2)
      *target++ = static_cast<std::byte>((static_cast<unsigned>(codes[i]) & 15U) |
                                         (static_cast<unsigned>(codes[i + 1]) & 15U) << 4U);
    if (i < count) *target = static_cast<std::byte>(static_cast<unsigned>(codes[i]) & 15U);
    return;
  }
  for (std::int64_t i = 0; i < count; i += per_byte) {
    unsigned byte = 0;
    for (std::int64_t j = 0; j < std::min(per_byte, count - i); ++j)
      byte |= (static_cast<unsigned>(codes[i + j]) & mask) << (static_cast<unsigned>(j) * width);
    *target++ = static_cast<std::byte>(byte);
  }
}

template <class T>
void round_piece(const float* x, const PieceScales& scales, std::int64_t begin, std::int64_t count,
                 const QuantizedType& type, std::byte* target, RoundingSums& sums) {
  const auto low = static_cast<float>(type.min()), high = static_cast<float>(type.max());
  if (!is_sub_byte(type.storage)) {
    T* const codes = reinterpret_cast<T*>(target) + begin;
    return round_loop<T>(x, scales.scale.data(), scales.zero.data(), count, low, high, codes, sums);
  }
  static thread_local std::vector<T> codes;
  codes.resize(static_cast<std::size_t>(count));
  round_loop<T>(x, scales.scale.data(), scales.zero.data(), count, low, high, codes.data(), sums);
  pack(codes.data(), begin, count, type.storage, target);
}

void round_float_piece(const float* x, const PieceScales& scales, std::int64_t begin, std::int64_t count,
                       const QuantizedType& type, std::byte* target, RoundingSums& sums) {
  const auto size = static_cast<std::size_t>(count);
  std::vector<float> levels(size);
  for (std::size_t i = 0; i < size; ++i) levels[i] = x[i] / scales.scale[i];
  const float largest = type.largest();
  for (const float level : levels) sums.clipped += std::fabs(level) > largest;
  std::byte* const codes = target + packed_bytes(type.storage, static_cast<std::size_t>(begin));
  convert_elements(DType::float32, reinterpret_cast<const std::byte*>(levels.data()), type.storage, codes, size);
  convert_elements(type.storage, codes, DType::float32, reinterpret_cast<std::byte*>(levels.data()), size);
  for (std::size_t i = 0; i < size; ++i) {
    const auto value = static_cast<double>(x[i]);
    const double error = value - static_cast<double>(levels[i] * scales.scale[i]);
    sums.signal += value * value;
    sums.noise += error * error;
    sums.zeros += levels[i] == 0;
  }
}

bool is_clipped(float value, const QuantizationParameters& p, const QuantizedType& type) {
  if (type.has_float_codes()) return std::fabs(value / p.scale) > type.largest();
  const float free = std::nearbyint(value / p.scale) + static_cast<float>(p.zero_point);
  return free < static_cast<float>(type.min()) || free > static_cast<float>(type.max());
}

// Scales, zero points and sums beside the codes.
void finish(QuantizedTensor& result, const Tensor& weight, const WeightGrid& grid,
            const std::vector<RoundingSums>& parts) {
  RoundingSums sums;
  for (const RoundingSums& part : parts) sums += part;
  result.zeros = sums.zeros;
  result.clipped = sums.clipped;
  result.snr_db =
      sums.noise > 0 ? 10 * std::log10(sums.signal / sums.noise) : std::numeric_limits<double>::infinity();
  const Dims dims = grid.granularity.scale_dims(weight.dims());
  Tensor scale = Tensor::uninitialized(DType::float32, dims);
  const std::span<float> scales = scale.mutable_data<float>();
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = grid.parameters[i].scale / grid.outer_scale;
  result.scale = scale.cast(grid.scale_type);
  if (grid.scale_type == DType::float8e4m3fn) result.outer_scale = Tensor::scalar(grid.outer_scale);
  if (grid.type.symmetric || grid.type.has_float_codes()) return;
  Tensor zero_point = Tensor::uninitialized(DType::int32, dims);
  const std::span<std::int32_t> zeros = zero_point.mutable_data<std::int32_t>();
  for (std::size_t i = 0; i < zeros.size(); ++i) zeros[i] = static_cast<std::int32_t>(grid.parameters[i].zero_point);
  result.zero_point = zero_point.cast(grid.type.storage);
}

std::size_t pieces_of(const Tensor& weight) {
  return static_cast<std::size_t>((weight.size() + piece_elements - 1) / piece_elements);
}

}  // namespace

QuantizedTensor round_to_nearest(const Tensor& weight, const WeightGrid& grid, ThreadPool* pool) {
  QuantizedTensor result{.codes = Tensor::uninitialized(grid.type.storage, weight.dims()),
                         .granularity = grid.granularity};
  std::byte* const target = result.codes.mutable_bytes().data();
  const ScaleRows rows(weight.dims(), grid.granularity);
  const GridRows by_row(grid);
  // By piece, so that sums do not depend on who does which.
  std::vector<RoundingSums> parts(pieces_of(weight));
  const QuantizedType& type = grid.type;
  for_each_piece(weight, pool, [&](const float* x, std::int64_t begin, std::int64_t count) {
    static thread_local PieceScales scales;
    scales.fill(rows, by_row, begin, count);
    RoundingSums& sums = parts[static_cast<std::size_t>(begin / piece_elements)];
    if (type.has_float_codes()) return round_float_piece(x, scales, begin, count, type, target, sums);
    const bool is_signed = is_signed_integer(type.storage);
    if (bits(type.storage) == 16)
      is_signed ? round_piece<std::int16_t>(x, scales, begin, count, type, target, sums)
                : round_piece<std::uint16_t>(x, scales, begin, count, type, target, sums);
    else
      is_signed ? round_piece<std::int8_t>(x, scales, begin, count, type, target, sums)
                : round_piece<std::uint8_t>(x, scales, begin, count, type, target, sums);
  });
  release_pages(weight.bytes());
  finish(result, weight, grid, parts);
  return result;
}

QuantizedTensor with_codes(const Tensor& weight, const WeightGrid& grid, std::span<const std::int32_t> codes) {
  QuantizedTensor result{.codes = Tensor::uninitialized(grid.type.storage, weight.dims()),
                         .granularity = grid.granularity};
  std::byte* const target = result.codes.mutable_bytes().data();
  const ScaleRows rows(weight.dims(), grid.granularity);
  std::vector<RoundingSums> parts(pieces_of(weight));
  const QuantizedType& type = grid.type;
  for_each_piece(weight, nullptr, [&](const float* x, std::int64_t begin, std::int64_t count) {
    RoundingSums& sums = parts[static_cast<std::size_t>(begin / piece_elements)];
    const std::int32_t* const chosen = codes.data() + begin;
    rows.each(begin, begin + count, [&](std::int64_t first, std::int64_t step, std::int64_t at, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        const QuantizationParameters& p = grid.parameters[static_cast<std::size_t>(first + i * step)];
        const auto value = static_cast<double>(x[at - begin + i]);
        const float level = dequantize(chosen[at - begin + i], p, type);
        const double error = value - static_cast<double>(level);
        sums.signal += value * value;
        sums.noise += error * error;
        sums.zeros += level == 0;
        sums.clipped += is_clipped(x[at - begin + i], p, type);
      }
    });
    if (bits(type.storage) == 16) {
      for (std::int64_t i = 0; i < count; ++i) {
        const auto code = static_cast<std::uint16_t>(chosen[i]);
        std::memcpy(target + 2 * (begin + i), &code, sizeof code);
      }
    } else {
      pack(chosen, begin, count, type.storage, target);
    }
  });
  finish(result, weight, grid, parts);
  return result;
}

}  // namespace onnxpress
