#include "passes/common/quantization.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/convert.h"

namespace onnxpress {
namespace {

// Rounds a scale to the type it will be stored in, never to zero or infinity. float16 has too short a
// range for normal numbers only; its subnormal ones are rounded up, so that they still cover the range.
float rounded_scale(float scale, DType type) {
  if (type == DType::float16 && scale < 0x1p-14F) return std::max(std::ceil(scale * 0x1p24F), 1.0F) * 0x1p-24F;
  const float largest = type == DType::float16 ? 65504.0F : std::numeric_limits<float>::max();
  return Tensor::scalar(std::clamp(scale, std::numeric_limits<float>::min(), largest)).cast(type).to_floats()[0];
}

// The most steps that a code is away from the zero point.
float reach(const QuantizationParameters& parameters, const QuantizedType& type) {
  return static_cast<float>(std::max(type.max() - parameters.zero_point, parameters.zero_point - type.min()));
}

void store_code(std::byte* codes, DType storage, std::int64_t index, std::int64_t code) {
  if (is_sub_byte(storage)) {
    const auto mask = (1U << bits(storage)) - 1U;
    set_packed(codes, storage, static_cast<std::size_t>(index), static_cast<std::uint8_t>(code & mask));
  } else {
    codes[index] = static_cast<std::byte>(code & 0xFF);
  }
}

Tensor zero_points(const std::vector<QuantizationParameters>& parameters, DType storage, Dims dims) {
  Tensor tensor(storage, std::move(dims));
  std::byte* bytes = tensor.mutable_bytes().data();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    store_code(bytes, storage, static_cast<std::int64_t>(i), parameters[i].zero_point);
  return tensor;
}

}  // namespace

std::int64_t QuantizedType::min() const {
  return symmetric ? -((std::int64_t{1} << (bits - 1)) - 1) : 0;
}

std::int64_t QuantizedType::max() const {
  return symmetric ? (std::int64_t{1} << (bits - 1)) - 1 : (std::int64_t{1} << bits) - 1;
}

QuantizationParameters min_max_parameters(float low, float high, const QuantizedType& type) {
  low = std::min(low, 0.0F);
  high = std::max(high, 0.0F);
  if (low == high) return {};
  // In double: high - low may overflow float.
  const double width = type.symmetric ? 2.0 * std::max(-static_cast<double>(low), static_cast<double>(high))
                                      : static_cast<double>(high) - static_cast<double>(low);
  const double scale = width / static_cast<double>(type.max() - type.min());
  QuantizationParameters parameters{.scale = std::max(static_cast<float>(scale), std::numeric_limits<float>::min())};
  if (!type.symmetric) {
    const double zero = static_cast<double>(type.min()) - static_cast<double>(low) / parameters.scale;
    parameters.zero_point = std::clamp(static_cast<std::int64_t>(std::nearbyint(zero)), type.min(), type.max());
  }
  // At the end of float's range the outermost codes may be rounded to infinity.
  while (!std::isfinite(parameters.scale * reach(parameters, type)))
    parameters.scale = std::nextafter(parameters.scale, 0.0F);
  return parameters;
}

float storable_scale(const QuantizationParameters& parameters, const QuantizedType& type, DType stored) {
  const auto round = [stored](float value) { return Tensor::scalar(value).cast(stored).to_floats()[0]; };
  float scale = rounded_scale(parameters.scale, stored);
  const float step = stored == DType::bfloat16 ? 0x1p-8F : 0x1p-11F;  // half a unit in the last place or more
  while (!std::isfinite(round(scale * reach(parameters, type)))) scale = round(scale * (1 - step));
  return scale;
}

std::int64_t quantize(float value, const QuantizationParameters& parameters, const QuantizedType& type) {
  const float rounded = std::nearbyint(value / parameters.scale) + static_cast<float>(parameters.zero_point);
  return static_cast<std::int64_t>(
      std::clamp(rounded, static_cast<float>(type.min()), static_cast<float>(type.max())));
}

float dequantize(std::int64_t code, const QuantizationParameters& parameters) {
  return static_cast<float>(code - parameters.zero_point) * parameters.scale;
}

Dims Granularity::scale_dims(const Dims& weight) const {
  if (kind == Kind::tensor) return {};
  const auto along = static_cast<std::size_t>(axis);
  if (kind == Kind::channel) return {weight[along]};
  Dims dims = weight;
  dims[along] = (dims[along] + block - 1) / block;
  return dims;
}

std::optional<WeightGrid> min_max_grid(const Tensor& weight, const QuantizedType& type,
                                       const Granularity& granularity, const GridOptions& options) {
  const std::vector<float> values = weight.to_floats();
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
    return std::nullopt;

  const auto groups = static_cast<std::size_t>(element_count(granularity.scale_dims(weight.dims())));
  std::vector<float> low(groups, 0.0F), high(groups, 0.0F);
  for_each_scale_run(weight.dims(), granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const auto g = static_cast<std::size_t>(group);
    for (std::int64_t i = begin; i < begin + count; ++i) {
      low[g] = std::min(low[g], values[static_cast<std::size_t>(i)]);
      high[g] = std::max(high[g], values[static_cast<std::size_t>(i)]);
    }
  });
  const DType scale_type = options.scale_type == DType::undefined ? weight.dtype() : options.scale_type;
  WeightGrid grid{type, granularity, scale_type, {}};
  for (std::size_t g = 0; g < groups; ++g) {
    QuantizationParameters parameters = min_max_parameters(low[g], high[g], type);
    if (options.power_of_two) parameters.scale = std::exp2(std::ceil(std::log2(parameters.scale)));
    parameters.scale = storable_scale(parameters, type, scale_type);
    grid.parameters.push_back(parameters);
  }
  return grid;
}

QuantizedTensor with_codes(const Tensor& weight, const WeightGrid& grid, std::span<const std::int32_t> codes) {
  const std::vector<float> values = weight.to_floats();
  QuantizedTensor result{.codes = Tensor(grid.type.storage, weight.dims()), .granularity = grid.granularity};
  std::byte* bytes = result.codes.mutable_bytes().data();
  double signal = 0, noise = 0;
  for_each_scale_run(weight.dims(), grid.granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const QuantizationParameters& p = grid.parameters[static_cast<std::size_t>(group)];
    for (std::int64_t i = begin; i < begin + count; ++i) {
      const float value = values[static_cast<std::size_t>(i)];
      const std::int64_t code = codes[static_cast<std::size_t>(i)];
      store_code(bytes, grid.type.storage, i, code);
      const double error = static_cast<double>(value) - static_cast<double>(dequantize(code, p));
      signal += static_cast<double>(value) * static_cast<double>(value);
      noise += error * error;
      result.zeros += code == p.zero_point;
    }
  });
  result.snr_db = noise > 0 ? 10 * std::log10(signal / noise) : std::numeric_limits<double>::infinity();
  const Dims scale_dims = grid.granularity.scale_dims(weight.dims());
  std::vector<float> scales;
  for (const QuantizationParameters& p : grid.parameters) scales.push_back(p.scale);
  result.scale = Tensor::of<float>(scale_dims, scales).cast(grid.scale_type);
  if (!grid.type.symmetric) result.zero_point = zero_points(grid.parameters, grid.type.storage, scale_dims);
  return result;
}

QuantizedTensor round_to_nearest(const Tensor& weight, const WeightGrid& grid) {
  const std::vector<float> values = weight.to_floats();
  std::vector<std::int32_t> codes(values.size());
  for_each_scale_run(weight.dims(), grid.granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const QuantizationParameters& p = grid.parameters[static_cast<std::size_t>(group)];
    for (std::int64_t i = begin; i < begin + count; ++i)
      codes[static_cast<std::size_t>(i)] =
          static_cast<std::int32_t>(quantize(values[static_cast<std::size_t>(i)], p, grid.type));
  });
  return with_codes(weight, grid, codes);
}

}  // namespace onnxpress
