#include "passes/quantize/static_grids.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "passes/common/rounding_error.h"
#include "passes/quantize/softmax_range.h"

namespace onnxpress {
namespace {

float largest_number(DType type) {
  switch (type) {
    case DType::float8e4m3fn: return 448.0F;
    case DType::float8e4m3fnuz: return 240.0F;
    default: return 57344.0F;  // float8e5m2, float8e5m2fnuz
  }
}

float rounded_up(float scale, DType type) {
  float rounded = Tensor::scalar(scale).cast(type).to_floats()[0];
  if (rounded < scale) rounded = Tensor::scalar(scale * (type == DType::bfloat16 ? 1.0078125F : 1.0009766F)).cast(type).to_floats()[0];
  return std::isfinite(rounded) && rounded > 0 ? rounded : scale;
}

}  // namespace

Tensor ActivationGrid::scale() const { return Tensor::scalar(parameters.scale).cast(scale_type); }

Tensor ActivationGrid::zero_point() const { return Tensor::scalar(parameters.zero_point).cast(type.storage); }

bool ActivationGrid::saturates_at(double lower, double upper) const {
  if (!type.is_integer()) return false;
  const auto code = [&](double value) {
    const float shifted = std::nearbyint(static_cast<float>(value) / parameters.scale) + static_cast<float>(parameters.zero_point);
    return std::clamp(shifted, static_cast<float>(type.least_code()), static_cast<float>(type.most_code()));
  };
  return (std::isinf(lower) || code(lower) == static_cast<float>(type.least_code())) &&
         (std::isinf(upper) || code(upper) == static_cast<float>(type.most_code()));
}

ActivationGrid make_activation_grid(float low, float high, const ActivationType& type, bool power_of_two,
                                    DType scale_type) {
  ActivationGrid grid{.type = type, .low = std::min(low, 0.0F), .high = std::max(high, 0.0F), .scale_type = scale_type};
  QuantizationParameters& p = grid.parameters;
  const float reach = std::max(-grid.low, grid.high);
  if (!type.is_integer()) {
    if (reach > 0) p.scale = std::max(reach / largest_number(type.storage), std::numeric_limits<float>::min());
  } else if (!type.symmetric) {
    p = min_max_parameters(grid.low, grid.high, {type.bits, false, type.storage});
  } else if (!is_signed_integer(type.storage) && grid.low == 0) {
    p = min_max_parameters(0, grid.high, {type.bits, false, type.storage});
  } else {
    p = min_max_parameters(-reach, reach, {type.bits, true, type.storage});
  }
  if (power_of_two) p.scale = std::exp2(std::ceil(std::log2(p.scale)));
  p.scale = rounded_up(p.scale, scale_type);
  if (!type.is_integer()) return grid;
  const std::int64_t least = type.least_code();
  if (type.symmetric) {
    const bool one_sided = !is_signed_integer(type.storage) && grid.low == 0;
    p.zero_point = is_signed_integer(type.storage) || one_sided ? 0 : std::int64_t{1} << (type.bits - 1);
  } else {
    const double zero = static_cast<double>(least) - static_cast<double>(grid.low) / static_cast<double>(p.scale);
    p.zero_point = std::clamp(static_cast<std::int64_t>(std::nearbyint(zero)), least, type.most_code());
  }
  return grid;
}

ActivationGrid operand_grid(const StaticPlan& plan, const Value& constant, const ActivationType& type) {
  float low = 0, high = 0;
  for (const float element : constant.constant()->to_floats()) {
    low = std::min(low, element);
    high = std::max(high, element);
  }
  if (const auto masked = plan.masked_constants.find(calibration_key(constant)); masked != plan.masked_constants.end())
    low = std::max(low, masked->second);
  return make_activation_grid(low, high, type, false, constant.constant()->dtype());
}

std::vector<ActivationGrid> choose_activation_grids(const StaticPlan& plan, const Calibration& calibration,
                                                    const StaticTypes& kinds, const QuantizeRequest& request,
                                                    const TypeInference& types, Exclusions& refused) {
  struct Range {
    float low = 0, high = 0;
    DType scale_type = DType::float32;
    int bits = 8;
  };
  std::vector<Range> ranges(plan.groups);
  const auto unmasked = unmasked_ranges(plan, calibration);
  for (const CodedValue& value : plan.values) {
    Range& range = ranges[value.group];
    range.bits = value.bits;
    if (!value.is_source) continue;
    const std::string key = calibration_key(*value.value);
    const ValueStatistics* statistics = calibration.find(*value.value);
    if (statistics != nullptr && statistics->nonfinite > 0) {
      refused.values.emplace(key, fmt::format("'{}' held NaN or infinity {} times on the calibration data",
                                              value.value->name(), statistics->nonfinite));
      continue;
    }
    if (statistics == nullptr || statistics->count == 0) {
      refused.values.emplace(key, fmt::format("'{}' was never computed on the calibration data", value.value->name()));
      continue;
    }
    const ActivationType codes = kinds.activation_of(value.bits);
    RangeOptions options = request.range;
    options.type = codes.grid();
    // All codes of an unsigned type are for values of one sign.
    if (!is_signed_integer(codes.storage) && statistics->min >= 0) options.type.symmetric = false;
    // Levels of a float type are dense where values are: nothing is won by cutting off the others.
    if (!codes.is_integer() && options.method != RangeMethod::ema) options.method = RangeMethod::minmax;
    auto [low, high] = unmasked[value.group] ? *unmasked[value.group] : choose_range(*statistics, options);
    // Probabilities: integer kernels of Softmax have the scale of [0, 1] only.
    if (value.made_on_codes && value.maker->node->is("Softmax")) low = 0, high = 1;
    range.low = std::min(range.low, low);
    range.high = std::max(range.high, high);
    const DType type = types.type(value.value).elem;
    if (is_float(type) && bits(type) == 16) range.scale_type = type;
  }
  std::vector<ActivationGrid> grids;
  for (std::size_t group = 0; group < ranges.size(); ++group) {
    const Range& range = ranges[group];
    grids.push_back(make_activation_grid(range.low, range.high, kinds.activation_of(range.bits), request.power_of_two,
                                         range.scale_type));
    grids.back().is_unmasked = unmasked[group].has_value();
  }
  return grids;
}

std::optional<RoundingError> expected_error(const ValueStatistics& statistics, const ActivationGrid& grid) {
  if (!grid.type.is_integer()) return std::nullopt;
  const auto steps = [&](std::int64_t code) { return static_cast<double>(code - grid.parameters.zero_point); };
  return rounding_error(statistics, {.scale = grid.parameters.scale,
                                     .lowest = steps(grid.type.least_code()),
                                     .highest = steps(grid.type.most_code())});
}

}  // namespace onnxpress
