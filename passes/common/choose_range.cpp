#include <algorithm>
#include <cmath>

#include "graph/base/error.h"
#include "passes/common/calibration.h"

namespace onnxpress {
namespace {

using Range = std::pair<float, float>;

// Where `share` of the counts lie below, values being spread evenly within a bin.
double quantile(const Histogram& histogram, double share) {
  const double wanted = share * static_cast<double>(histogram.total());
  double below = 0;
  for (std::size_t i = 0; i < histogram.counts.size(); ++i) {
    const auto count = static_cast<double>(histogram.counts[i]);
    if (count > 0 && below + count >= wanted) return histogram.edge(i) + (wanted - below) / count * histogram.width();
    below += count;
  }
  return histogram.edge(histogram.counts.size());
}

Range percentile_range(const ValueStatistics& statistics, const RangeOptions& options) {
  const double outside = (1 - options.percentile / 100) / 2;
  const auto bounded = [&](double value) {
    return std::clamp(static_cast<float>(value), statistics.min, statistics.max);
  };
  return {bounded(quantile(statistics.histogram, outside)), bounded(quantile(statistics.histogram, 1 - outside))};
}

}  // namespace

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

Range choose_range(const ValueStatistics& statistics, const RangeOptions& options) {
  Range range{statistics.min, statistics.max};
  switch (options.method) {
    case RangeMethod::ema: range = {statistics.ema_min, statistics.ema_max}; break;
    case RangeMethod::percentile: range = percentile_range(statistics, options); break;
    default: break;
  }
  return {std::min(range.first, 0.0F), std::max(range.second, 0.0F)};
}

}  // namespace onnxpress
