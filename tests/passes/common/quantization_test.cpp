#include "passes/common/quantization.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/random.h"
#include "graph/ops/channel_affine.h"

namespace onnxpress {
namespace {

QuantizedType grid(int bits, bool symmetric) {
  if (bits <= 2) return {bits, symmetric, symmetric ? DType::int2 : DType::uint2};
  if (bits <= 4) return {bits, symmetric, symmetric ? DType::int4 : DType::uint4};
  return {bits, symmetric, symmetric ? DType::int8 : DType::uint8};
}

TEST_CASE("levels") {
  CHECK(grid(8, true).min() == -127);
  CHECK(grid(8, true).max() == 127);
  CHECK(grid(2, true).min() == -1);
  CHECK(grid(2, true).max() == 1);
  CHECK(grid(5, false).min() == 0);
  CHECK(grid(5, false).max() == 31);
}

TEST_CASE("every range gives a usable grid with an exact zero") {
  constexpr float largest = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  const std::pair<float, float> ranges[] = {{0, 0},           {-1, 1},         {0.5F, 2},      {-3, -1},
                                            {-tiny, tiny},    {0, tiny},       {-largest, largest}, {0, largest},
                                            {-largest, 0},    {-1e-30F, 1e30F}, {-1, 1e-6F}};
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {true, false}) {
      const QuantizedType type = grid(bits, symmetric);
      for (const std::pair<float, float>& range : ranges) {
        const float low = range.first, high = range.second;
        CAPTURE(bits);
        CAPTURE(symmetric);
        CAPTURE(low);
        CAPTURE(high);
        const QuantizationParameters p = min_max_parameters(low, high, type);
        CHECK(std::isnormal(p.scale));
        CHECK(p.scale > 0);
        CHECK(p.zero_point >= type.min());
        CHECK(p.zero_point <= type.max());
        if (symmetric) CHECK(p.zero_point == 0);
        CHECK(dequantize(quantize(0.0F, p, type), p) == 0.0F);
        for (const float value : {low, high}) {
          const std::int64_t code = quantize(value, p, type);
          CHECK(code >= type.min());
          CHECK(code <= type.max());
          const double error = std::fabs(static_cast<double>(dequantize(code, p)) - static_cast<double>(value));
          CHECK(error <= static_cast<double>(p.scale) * 1.001);
        }
      }
      CHECK(min_max_parameters(0, 0, type).scale == 1.0F);
    }
  }
}

// One element by the definition, in double.
std::int64_t slow_code(double value, double scale, std::int64_t zero, const QuantizedType& type) {
  const double q = value / scale;
  double rounded = std::floor(q);
  const double rest = q - rounded;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(rounded, 2.0) != 0)) rounded += 1;
  return std::clamp(static_cast<std::int64_t>(rounded) + zero, type.min(), type.max());
}

TEST_CASE("codes are those of a slow reference, ties to even") {
  const QuantizationParameters half{.scale = 1.0F, .zero_point = 0};
  CHECK(quantize(0.5F, half, grid(8, true)) == 0);
  CHECK(quantize(1.5F, half, grid(8, true)) == 2);
  CHECK(quantize(-2.5F, half, grid(8, true)) == -2);
  CHECK(quantize(1e30F, half, grid(8, true)) == 127);
  CHECK(quantize(-1e30F, half, grid(8, false)) == 0);
  Random random(1);
  for (int i = 0; i < 20000; ++i) {
    const QuantizedType type = grid(2 + static_cast<int>(random.below(7)), random.below(2) == 0);
    const float low = static_cast<float>(-random.uniform(0, 3)), high = static_cast<float>(random.uniform(0, 5));
    const QuantizationParameters p = min_max_parameters(low, high, type);
    const float value = static_cast<float>(random.uniform(-4, 6));
    // A float quotient may round onto a tie that the exact one misses: one step is then allowed.
    const double exact = static_cast<double>(value) / static_cast<double>(p.scale);
    const bool near_tie = std::fabs(std::fabs(exact - std::floor(exact)) - 0.5) < 1e-4;
    const std::int64_t difference = quantize(value, p, type) - slow_code(static_cast<double>(value), static_cast<double>(p.scale), p.zero_point, type);
    CHECK(std::abs(difference) <= (near_tie ? 1 : 0));
    const std::int64_t code = quantize(value, p, type);
    CHECK(static_cast<double>(dequantize(code, p)) ==
          doctest::Approx(static_cast<double>(code - p.zero_point) * static_cast<double>(p.scale)));
  }
}

std::optional<QuantizedTensor> quantize_min_max(const Tensor& weight, const QuantizedType& type,
                                                std::optional<std::int64_t> axis) {
  const auto grid_of = min_max_grid(weight, type, axis ? Granularity::per_channel(*axis) : Granularity::per_tensor());
  return grid_of ? std::optional(round_to_nearest(weight, *grid_of)) : std::nullopt;
}

std::vector<std::int64_t> codes_of(const QuantizedTensor& quantized) {
  const Tensor wide = quantized.codes.cast(DType::int32);
  return {wide.data<std::int32_t>().begin(), wide.data<std::int32_t>().end()};
}

TEST_CASE("tensors, whole and in slices of any axis") {
  Random random(2);
  std::vector<float> values(2 * 3 * 5);
  for (float& value : values) value = static_cast<float>(random.uniform(-2, 3));
  values[7] = 0;
  for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16}) {
    const Tensor weight = Tensor::of<float>({2, 3, 5}, values).cast(dtype);
    const std::vector<float> stored = weight.to_floats();
    for (int bits = 2; bits <= 8; ++bits) {
      for (const bool symmetric : {true, false}) {
        for (std::int64_t axis = -1; axis < 3; ++axis) {
          CAPTURE(bits);
          CAPTURE(symmetric);
          CAPTURE(axis);
          const QuantizedType type = grid(bits, symmetric);
          const auto quantized = quantize_min_max(weight, type, axis < 0 ? std::nullopt : std::optional(axis));
          REQUIRE(quantized);
          CHECK(quantized->codes.dtype() == type.storage);
          CHECK(quantized->codes.dims() == weight.dims());
          CHECK(quantized->scale.dtype() == dtype);
          CHECK(quantized->scale.dims() == (axis < 0 ? Dims{} : Dims{weight.dim(static_cast<std::size_t>(axis))}));
          CHECK((quantized->granularity.kind == Granularity::Kind::channel) == (axis >= 0));
          CHECK(quantized->zero_point.defined() != symmetric);
          const std::vector<float> scales = quantized->scale.to_floats();
          std::vector<std::int32_t> zeros(scales.size(), 0);
          if (!symmetric) {
            CHECK(quantized->zero_point.dtype() == type.storage);
            const Tensor wide = quantized->zero_point.cast(DType::int32);
            zeros.assign(wide.data<std::int32_t>().begin(), wide.data<std::int32_t>().end());
          }
          const std::vector<std::int64_t> codes = codes_of(*quantized);
          const std::int64_t steps[] = {15, 5, 1};
          for (std::size_t i = 0; i < codes.size(); ++i) {
            const std::size_t c = axis < 0 ? 0
                                           : static_cast<std::size_t>(static_cast<std::int64_t>(i) / steps[axis] %
                                                                      weight.dim(static_cast<std::size_t>(axis)));
            CHECK(codes[i] >= type.min());
            CHECK(codes[i] <= type.max());
            const double back = static_cast<double>(codes[i] - zeros[c]) * static_cast<double>(scales[c]);
            CHECK(std::fabs(back - static_cast<double>(stored[i])) <= 1.01 * static_cast<double>(scales[c]));
            if (stored[i] == 0.0F) CHECK(back == 0.0);
          }
          CHECK(quantized->snr_db > 0);
        }
      }
    }
  }
}

TEST_CASE("edges") {
  const auto zeros = quantize_min_max(Tensor(DType::float32, {4}), grid(4, true), std::nullopt);
  REQUIRE(zeros);
  CHECK(zeros->zeros == 4);
  CHECK(std::isinf(zeros->snr_db));
  CHECK(zeros->scale.to_floats()[0] == 1.0F);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    CHECK_FALSE(quantize_min_max(Tensor::of<float>({2}, {1, bad}), grid(8, true), std::nullopt));
  // float16 scales below its normal numbers keep their resolution.
  const Tensor half = Tensor::of<float>({2}, {1e-3F, -5e-4F}).cast(DType::float16);
  const auto small = quantize_min_max(half, grid(8, true), std::nullopt);
  REQUIRE(small);
  CHECK(codes_of(*small)[0] >= 126);
  CHECK(small->snr_db > 30);
  const Tensor least = Tensor::of<float>({1}, {0x1p-24F}).cast(DType::float16);
  CHECK(quantize_min_max(least, grid(8, true), std::nullopt)->scale.to_floats()[0] > 0);
  const Tensor most = Tensor::of<float>({2}, {65504, -65504}).cast(DType::float16);
  for (const bool symmetric : {true, false})
    for (const int bits : {2, 4, 8}) {
      const auto quantized = quantize_min_max(most, grid(bits, symmetric), std::nullopt);
      const float scale = quantized->scale.to_floats()[0];
      CHECK(std::isfinite(Tensor::scalar(scale * static_cast<float>(symmetric ? (1 << (bits - 1)) - 1 : 1 << (bits - 1))).cast(DType::float16).to_floats()[0]));
      CHECK(quantized->snr_db > 0);
    }
}

TEST_CASE("BatchNormalization as scale and shift of channels") {
  const ChannelAffine affine =
      batch_norm_affine(Tensor::of<float>({2}, {2, 3}), Tensor::of<float>({2}, {1, -1}),
                        Tensor::of<float>({2}, {5, 6}), Tensor::of<float>({2}, {3, 8}), 1.0);
  CHECK(affine.scale == std::vector<double>{1, 1});
  CHECK(affine.shift == std::vector<double>{-4, -7});
  const Tensor w = Tensor::of<float>({2, 2, 1}, {1, 2, 3, 4});
  CHECK(scale_slices(w, 0, {10, 100}).to_floats() == std::vector<float>{10, 20, 300, 400});
  CHECK(scale_slices(w, 1, {10, 100}).to_floats() == std::vector<float>{10, 200, 30, 400});
  CHECK(scale_slices(w, 1, {1, 2, 3, 4}, 2).to_floats() == std::vector<float>{1, 4, 9, 16});
  CHECK(scale_slices(Tensor(DType::float32, {2, 2, 0}), 1, {1, 2, 3, 4}, 2).size() == 0);
}

}  // namespace
}  // namespace onnxpress
