// The scales of a weight.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "graph/base/convert.h"
#include "passes/common/quantization.h"
#include "passes/common/rounding_loops.h"
#include "passes/common/scale_rows.h"
#include "passes/common/weight_pieces.h"

namespace onnxpress {
namespace {

constexpr std::int64_t groups_at_once = 4096;
// The least scale of a tensor of NVFP4: times the least float8e4m3fn it is a normal float.
constexpr float least_outer_scale = 0x1p-100F;
constexpr float least_inner_scale = 0x1p-9F;

float nearest_float8(float value) {
  return minifloat_to_float(float_to_minifloat(value, DType::float8e4m3fn), DType::float8e4m3fn);
}

struct Ranges {
  std::vector<float> low, high;  // of every group, zero included
  bool finite = true;
};

Ranges measure(const Tensor& weight, const ScaleRows& rows, std::size_t groups, ThreadPool* pool) {
  Ranges ranges{std::vector<float>(groups, 0.0F), std::vector<float>(groups, 0.0F)};
  std::mutex mutex;
  for_each_piece(weight, pool, [&](const float* x, std::int64_t begin, std::int64_t count) {
    std::int64_t first = static_cast<std::int64_t>(groups), last = -1;
    rows.each(begin, begin + count, [&](std::int64_t scale, std::int64_t step, std::int64_t, std::int64_t n) {
      first = std::min(first, scale);
      last = std::max(last, scale + step * (n - 1));
    });
    std::vector<float> low(static_cast<std::size_t>(last - first + 1), 0.0F), high = low;
    bool finite = true;
    rows.each(begin, begin + count, [&](std::int64_t scale, std::int64_t step, std::int64_t at, std::int64_t n) {
      const auto g = static_cast<std::size_t>(scale - first);
      finite &= step == 0 ? range_loop(x + (at - begin), n, low[g], high[g])
                          : ranges_loop(x + (at - begin), n, &low[g], &high[g]);
    });
    const std::scoped_lock lock(mutex);
    ranges.finite &= finite;
    ranges_loop(low.data(), std::ssize(low), ranges.low.data() + first, ranges.high.data() + first);
    ranges_loop(high.data(), std::ssize(high), ranges.low.data() + first, ranges.high.data() + first);
  });
  return ranges;
}

// Squared error of a value on float codes of this scale.
double squared_error(float value, float scale, DType codes) {
  const float level = minifloat_to_float(float_to_minifloat(value / scale, codes), codes);
  const double error = static_cast<double>(value) - static_cast<double>(level * scale);
  return error * error;
}

// Halves the scale of every block that is rounded with less squared error by it, although it clips.
void choose_exponents(const Tensor& weight, const ScaleRows& rows, WeightGrid& grid, ThreadPool* pool) {
  const std::int64_t slab = grid.granularity.block * rows.inner();
  const std::int64_t at_once = std::max<std::int64_t>(1, piece_elements / std::max<std::int64_t>(1, slab));
  const DType codes = grid.type.storage;
  run_blocks(rows.outer() * rows.blocks(), at_once, pool, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> values;
    std::vector<double> gain(static_cast<std::size_t>(rows.inner()));
    for (std::int64_t index = begin; index < end; ++index) {
      const std::int64_t from = index % rows.blocks() * grid.granularity.block;
      const std::int64_t count = std::min(grid.granularity.block, rows.extent() - from);
      read_floats(weight, (index / rows.blocks() * rows.extent() + from) * rows.inner(), count * rows.inner(),
                  values);
      std::ranges::fill(gain, 0.0);
      QuantizationParameters* const parameters = grid.parameters.data() + index * rows.inner();
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto column = static_cast<std::int64_t>(i) % rows.inner();
        const float scale = parameters[column].scale;
        gain[static_cast<std::size_t>(column)] +=
            squared_error(values[i], scale, codes) - squared_error(values[i], scale / 2, codes);
      }
      for (std::int64_t column = 0; column < rows.inner(); ++column)
        if (gain[static_cast<std::size_t>(column)] > 0 && parameters[column].scale > std::numeric_limits<float>::min())
          parameters[column].scale /= 2;
    }
  });
}

// Scales as float8e4m3fn times a float32 scale that gives the largest of them the largest float8. A
// scale of 0, of a group of zeros, becomes the least.
void split_scales(WeightGrid& grid) {
  float largest = 0;
  for (const QuantizationParameters& p : grid.parameters) largest = std::max(largest, p.scale);
  constexpr float largest_inner = 448.0F;
  grid.outer_scale = largest > 0 ? std::max(largest / largest_inner, least_outer_scale) : 1.0F;
  for (QuantizationParameters& p : grid.parameters)
    p.scale = std::max(nearest_float8(p.scale / grid.outer_scale), least_inner_scale) * grid.outer_scale;
}

}  // namespace

std::optional<WeightGrid> min_max_grid(const Tensor& weight, const QuantizedType& type,
                                       const Granularity& granularity, const GridOptions& options,
                                       ThreadPool* pool) {
  const auto groups = static_cast<std::size_t>(element_count(granularity.scale_dims(weight.dims())));
  const ScaleRows rows(weight.dims(), granularity);
  const Ranges ranges = measure(weight, rows, groups, pool);
  if (!ranges.finite) return std::nullopt;
  const DType scale_type = options.scale_type == DType::undefined ? weight.dtype() : options.scale_type;
  const bool two_levels = scale_type == DType::float8e4m3fn;
  WeightGrid grid{type, granularity, scale_type, 1, std::vector<QuantizationParameters>(groups)};
  run_blocks(static_cast<std::int64_t>(groups), groups_at_once, pool, [&](std::int64_t begin, std::int64_t end) {
    for (auto g = static_cast<std::size_t>(begin); g < static_cast<std::size_t>(end); ++g) {
      QuantizationParameters& parameters = grid.parameters[g];
      parameters = min_max_parameters(ranges.low[g], ranges.high[g], type);
      if (options.power_of_two) parameters.scale = power_of_two_above(parameters.scale);
      if (!two_levels) parameters.scale = storable_scale(parameters, type, scale_type);
      else if (ranges.low[g] == ranges.high[g]) parameters.scale = 0;
    }
  });
  const bool has_blocks = granularity.kind == Granularity::Kind::block;
  if (scale_type == DType::float8e8m0 && type.has_float_codes() && has_blocks)
    choose_exponents(weight, rows, grid, pool);
  if (two_levels) split_scales(grid);
  return grid;
}

}  // namespace onnxpress
