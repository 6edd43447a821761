#include "passes/common/calibration.h"

#include <cmath>

#include "graph/base/error.h"

namespace onnxpress {

double Histogram::width() const { return std::exp2(exponent); }

std::int64_t Histogram::total() const {
  std::int64_t sum = 0;
  for (const std::int64_t count : counts) sum += count;
  return sum;
}

const ValueStatistics* Calibration::find(const Value& value) const {
  const auto found = values.find(calibration_key(value));
  return found == values.end() ? nullptr : &found->second;
}

std::string calibration_key(const Value& value) { return value.name(); }

Calibration calibrate(const Model&, PassContext&, const CalibrationRequest&) { fail("calibration is not built yet"); }

std::string_view name(RangeMethod method) {
  switch (method) {
    case RangeMethod::minmax: return "minmax";
    case RangeMethod::ema: return "ema";
    case RangeMethod::percentile: return "percentile";
    case RangeMethod::entropy: return "entropy";
    case RangeMethod::mse: return "mse";
    case RangeMethod::snr: return "snr";
  }
  return {};
}

std::pair<float, float> choose_range(const ValueStatistics& statistics, const RangeOptions&) {
  return {std::min(statistics.min, 0.0F), std::max(statistics.max, 0.0F)};
}

}  // namespace onnxpress
