#include "passes/common/rounding_error.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

// ∫ of the squared rounding error from 0 to u, in steps of the grid whose levels are the integers
// in [lowest, highest]: per step 1/12, within one (u - n)^3 / 3, and beyond the grid as far as u is,
// `clipping` times.
struct ErrorIntegral {
  double lowest, highest, clipping;

  double operator()(double u) const {
    // Adding and taking away this rounds to the nearest integer: std::round is a call on x86-64.
    constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52
    const double inside = std::min(std::max(u, lowest), highest);
    const double level = (inside + rounder) - rounder;
    const double rest = inside - level, beyond = u - inside;
    return level / 12 + (rest * rest * rest + clipping * beyond * beyond * beyond) / 3;
  }
};

}  // namespace

Density::Density(const ValueStatistics& statistics)
    : width_(statistics.histogram.width()), total_(static_cast<double>(statistics.count)) {
  const Histogram& histogram = statistics.histogram;
  counts_.assign(histogram.counts.begin(), histogram.counts.end());
  if (!counts_.empty()) counts_[static_cast<std::size_t>(-histogram.first)] -= static_cast<double>(statistics.zeros);
  for (std::size_t i = 0; i <= counts_.size(); ++i) {
    const double before = i > 0 ? counts_[i - 1] : 0, behind = i < counts_.size() ? counts_[i] : 0;
    edges_.push_back(histogram.edge(i));
    falls_.push_back(before - behind);
  }
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    const double a = edges_[i], b = edges_[i + 1];
    power_ += counts_[i] * (a * a + a * b + b * b) / 3;
  }
  if (total_ > 0) power_ /= total_;
}

Levels Levels::of(const QuantizationParameters& parameters, const QuantizedType& type) {
  return {.scale = parameters.scale,
          .lowest = static_cast<double>(type.min() - parameters.zero_point),
          .highest = static_cast<double>(type.max() - parameters.zero_point)};
}

double Density::mean_square_error(const Levels& levels, double clipping) const {
  const double scale = levels.scale, steps = 1 / scale;
  const ErrorIntegral integral{levels.lowest, levels.highest, clipping};
  // The counts times what the integral gains in each bin, summed by edges; four sums at once.
  double sums[4] = {};
  std::size_t i = 0;
  for (; i + 4 <= edges_.size(); i += 4)
    for (std::size_t k = 0; k < 4; ++k) sums[k] += falls_[i + k] * integral(edges_[i + k] * steps);
  for (; i < edges_.size(); ++i) sums[0] += falls_[i] * integral(edges_[i] * steps);
  const double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return total_ > 0 ? std::max(sum, 0.0) * scale * scale * (scale / width_) / total_ : 0;
}

double Density::share_outside(double low, double high) const {
  double outside = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    const double inside = std::max(std::min(edges_[i + 1], high) - std::max(edges_[i], low), 0.0);
    outside += counts_[i] * (1 - inside / width_);
  }
  return total_ > 0 ? outside / total_ : 0;
}

std::optional<RoundingError> rounding_error(const ValueStatistics& statistics, const Levels& levels) {
  if (statistics.count == 0 || statistics.histogram.counts.empty()) return std::nullopt;
  const Density density(statistics);
  RoundingError error{.mean_square = density.mean_square_error(levels)};
  error.snr_db = error.mean_square > 0 ? 10 * std::log10(density.mean_square() / error.mean_square)
                                       : std::numeric_limits<double>::infinity();
  // Half a step beyond the last level is rounded, not clipped; so is what the last bin has above
  // the largest value seen.
  const double low = (levels.lowest - 0.5) * levels.scale, high = (levels.highest + 0.5) * levels.scale;
  if (low > statistics.min || high < statistics.max) error.clipped_share = density.share_outside(low, high);
  return error;
}

}  // namespace onnxpress
