#include "passes/common/range_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "passes/common/rounding_error.h"

namespace onnxpress {
namespace {

using Range = std::pair<double, double>;

class ErrorSearch {
 public:
  ErrorSearch(const ValueStatistics& statistics, const QuantizedType& type, double clipping)
      : density_(statistics),
        type_(type),
        clipping_(clipping),
        full_(std::min(statistics.min, 0.0F), std::max(statistics.max, 0.0F)) {
    best_ = full_;
    least_ = error(grid(full_));
  }

  Range run() {
    if (type_.symmetric) {
      improve([](double factor, const Range&) { return Range{factor, factor}; });
      return best_;
    }
    constexpr int rounds = 3;
    for (int round = 0; round < rounds; ++round) {
      const Range before = best_;
      if (full_.second > 0) improve([](double factor, const Range& now) { return Range{now.first, factor}; });
      if (full_.first < 0) improve([](double factor, const Range& now) { return Range{factor, now.second}; });
      if (best_ == before || full_.first == 0 || full_.second == 0) break;
    }
    return best_;
  }

 private:
  // Tries shares of the full range; `ends` says which of the two ends a share is for: both ends as
  // shares of the full range.
  template <class Ends>
  void improve(const Ends& ends) {
    constexpr int octaves = 12, coarse = 8, fine = 64;
    const Range now = shares_;
    int found = 0;
    const auto attempt = [&](double octave) {
      return octave < 0 ? Verdict::worse : consider(ends(std::exp2(-octave), now));
    };
    for (int step = 0; step <= octaves * coarse; ++step) {
      const Verdict verdict = attempt(static_cast<double>(step) / coarse);
      if (verdict == Verdict::hopeless) break;
      if (verdict == Verdict::better) found = step;
    }
    for (int step = 1 - fine / coarse; step < fine / coarse; ++step)
      attempt(static_cast<double>(found) / coarse + static_cast<double>(step) / fine);
  }

  // Hopeless: what is clipped alone is worse than the best, and narrower ranges clip more.
  enum class Verdict { better, worse, hopeless };

  Verdict consider(const Range& shares) {
    const Range range = bounded(shares);
    const QuantizationParameters parameters = grid(range);
    const double found = error(parameters);
    if (found < least_) {
      least_ = found;
      best_ = range;
      shares_ = shares;
      return Verdict::better;
    }
    const double most_rounding = 0.25 * parameters.scale * parameters.scale;
    return found - most_rounding > least_ ? Verdict::hopeless : Verdict::worse;
  }

  double error(const QuantizationParameters& parameters) const {
    return density_.mean_square_error(Levels::of(parameters, type_), clipping_);
  }

  QuantizationParameters grid(const Range& range) const {
    return min_max_parameters(static_cast<float>(range.first), static_cast<float>(range.second), type_);
  }

  // Symmetric grids: the share is of the larger magnitude.
  Range bounded(const Range& shares) const {
    if (!type_.symmetric) return {full_.first * shares.first, full_.second * shares.second};
    const double bound = std::max(-full_.first, full_.second) * shares.second;
    return {std::max(full_.first, -bound), std::min(full_.second, bound)};
  }

  Density density_;
  QuantizedType type_;
  double clipping_;
  Range full_, best_, shares_{1, 1};
  double least_ = std::numeric_limits<double>::infinity();
};

}  // namespace

Range least_error_range(const ValueStatistics& statistics, const QuantizedType& type, double clipping) {
  return ErrorSearch(statistics, type, clipping).run();
}

}  // namespace onnxpress
