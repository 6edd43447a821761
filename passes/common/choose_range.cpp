#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "graph/base/error.h"
#include "passes/common/calibration.h"
#include "passes/common/range_entropy.h"
#include "passes/common/range_search.h"

namespace onnxpress {
namespace {

using Range = std::pair<double, double>;

// Where `share` of the counts lie below, values being spread evenly within a bin.
double quantile(std::span<const std::int64_t> counts, double first_edge, double width, double share) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  const double wanted = share * total;
  double below = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto count = static_cast<double>(counts[i]);
    if (count > 0 && below + count >= wanted)
      return first_edge + (static_cast<double>(i) + (wanted - below) / count) * width;
    below += count;
  }
  return first_edge + static_cast<double>(counts.size()) * width;
}

// Symmetric: the share of magnitudes; else as many are left out at either end.
Range percentile_range(const ValueStatistics& statistics, const RangeOptions& options) {
  const Histogram& histogram = statistics.histogram;
  const double outside = 1 - options.percentile / 100;
  if (options.type.symmetric) {
    const double bound = quantile(histogram.magnitudes(), 0, histogram.width(), 1 - outside);
    return {-bound, bound};
  }
  return {quantile(histogram.counts, histogram.edge(0), histogram.width(), outside / 2),
          quantile(histogram.counts, histogram.edge(0), histogram.width(), 1 - outside / 2)};
}

// How often `snr` counts the error of clipped values. Clipping errs in one direction, so that sums over
// many values gather it, while errors of rounding cancel. On most models of bench/quantize/accuracy.py
// outputs are better than with 1, and on the five that 16 was tried on, better than with that.
constexpr double snr_clipping = 4;

Range range_by_histogram(const ValueStatistics& statistics, const RangeOptions& options) {
  require(!statistics.histogram.counts.empty(), "calibration '{}' needs histograms, found none", name(options.method));
  switch (options.method) {
    case RangeMethod::percentile: return percentile_range(statistics, options);
    case RangeMethod::entropy: return entropy_range(statistics, options.type);
    case RangeMethod::mse: return least_error_range(statistics, options.type, 1);
    default: return least_error_range(statistics, options.type, snr_clipping);
  }
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

std::pair<float, float> choose_range(const ValueStatistics& statistics, const RangeOptions& options) {
  if (statistics.count == 0) return {0.0F, 0.0F};
  Range range{statistics.min, statistics.max};
  if (options.method == RangeMethod::ema)
    range = {statistics.ema_min, statistics.ema_max};
  else if (options.method != RangeMethod::minmax)
    range = range_by_histogram(statistics, options);
  const auto with_zero = [](float low, float high) { return std::pair{std::min(low, 0.0F), std::max(high, 0.0F)}; };
  const auto chosen = with_zero(std::max(static_cast<float>(range.first), statistics.min),
                                std::min(static_cast<float>(range.second), statistics.max));
  // A part of the least float is nothing.
  return chosen.first == chosen.second ? with_zero(statistics.min, statistics.max) : chosen;
}

}  // namespace onnxpress
