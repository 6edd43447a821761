#include "passes/common/range_entropy.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace onnxpress {
namespace {

double x_log_x(double x) { return x > 0 ? x * std::log(x) : 0.0; }

// Bins of values, or of magnitudes, with running sums.
class Bins {
 public:
  explicit Bins(std::vector<double> counts) : counts_(std::move(counts)) {
    const std::size_t size = counts_.size() + 1;
    sum_.resize(size);
    filled_.resize(size);
    entropy_.resize(size);
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      sum_[i + 1] = sum_[i] + counts_[i];
      filled_[i + 1] = filled_[i] + (counts_[i] > 0 ? 1 : 0);
      entropy_[i + 1] = entropy_[i] + x_log_x(counts_[i]);
    }
  }

  std::size_t size() const { return counts_.size(); }

  // D(P || Q) of bins [begin, end) on `levels` levels.
  double divergence(std::size_t begin, std::size_t end, std::size_t levels) const {
    constexpr double empty = 1e-4;  // count that Q has where only P has one
    const double total = sum_.back(), inside = sum_[end] - sum_[begin];
    if (inside <= 0) return std::numeric_limits<double>::infinity();
    const double below = sum_[begin], above = total - sum_[end];
    const std::size_t last = end - 1;
    // Σ P log P of the counts, the outermost bins with what lies outside.
    double sum = entropy_[end] - entropy_[begin];
    if (begin == last) {
      sum += x_log_x(counts_[begin] + below + above) - x_log_x(counts_[begin]);
    } else {
      sum += x_log_x(counts_[begin] + below) - x_log_x(counts_[begin]);
      sum += x_log_x(counts_[last] + above) - x_log_x(counts_[last]);
    }
    // Less Σ P log Q.
    const std::size_t bins = end - begin;
    const std::size_t used = std::min(levels, bins);
    for (std::size_t level = 0; level < used; ++level) {
      const std::size_t from = begin + level * bins / used, to = begin + (level + 1) * bins / used;
      double mass = sum_[to] - sum_[from];
      const double filled = filled_[to] - filled_[from];
      const double share = filled > 0 ? mass / filled : 0;
      if (from == begin) {
        if (counts_[begin] > 0)
          mass += below;
        else
          sum -= below * std::log(empty);
      }
      if (to == end) {
        if (counts_[last] > 0)
          mass += above;
        else
          sum -= above * std::log(empty);
      }
      if (share > 0) sum -= mass * std::log(share);
    }
    return sum / total;
  }

 private:
  std::vector<double> counts_, sum_, filled_, entropy_;
};

struct Candidate {
  std::size_t begin = 0, end = 0;
  double divergence = std::numeric_limits<double>::infinity();
};

class Search {
 public:
  Search(const Bins& bins, std::size_t levels) : bins_(bins), levels_(levels) {}

  // The lower end moves up to `most_begin`, the upper one down to `least_end`.
  Candidate run(std::size_t most_begin, std::size_t least_end) {
    constexpr int rounds = 4;
    best_.end = bins_.size();
    consider(0, bins_.size());
    for (int round = 0; round < rounds; ++round) {
      const Candidate before = best_;
      const std::size_t floor = std::max(least_end, best_.begin + std::min(levels_, bins_.size()));
      for (const std::size_t end : ends(floor, bins_.size())) consider(best_.begin, end);
      const std::size_t room = best_.end > levels_ ? best_.end - levels_ : 0;
      for (const std::size_t begin : ends(0, std::min(most_begin, room))) consider(begin, best_.end);
      if (before.begin == best_.begin && before.end == best_.end) break;
    }
    const Candidate coarse = best_;
    const std::size_t reach = bins_.size() / candidates + 1;
    for (std::size_t end = coarse.end - std::min(reach, coarse.end); end <= coarse.end + reach; ++end)
      if (end >= least_end) consider(coarse.begin, end);
    for (std::size_t begin = coarse.begin - std::min(reach, coarse.begin); begin <= coarse.begin + reach; ++begin)
      if (begin <= most_begin) consider(begin, best_.end);
    return best_;
  }

 private:
  static constexpr std::size_t candidates = 256;

  // Both bounds and evenly between them.
  static std::vector<std::size_t> ends(std::size_t from, std::size_t to) {
    std::vector<std::size_t> found;
    if (from > to) return found;
    const std::size_t step = std::max<std::size_t>((to - from) / candidates, 1);
    for (std::size_t i = to;; i -= step) {
      found.push_back(i);
      if (i < from + step) break;
    }
    return found;
  }

  void consider(std::size_t begin, std::size_t end) {
    if (end <= begin || end > bins_.size()) return;
    const double divergence = bins_.divergence(begin, end, levels_);
    if (divergence < best_.divergence) best_ = {begin, end, divergence};
  }

  const Bins& bins_;
  std::size_t levels_;
  Candidate best_;
};

}  // namespace

std::pair<double, double> entropy_range(const ValueStatistics& statistics, const QuantizedType& type) {
  const Histogram& histogram = statistics.histogram;
  const auto zeros = static_cast<double>(statistics.zeros);
  if (!type.symmetric) {
    const auto zero_bin = static_cast<std::size_t>(-histogram.first);
    std::vector<double> counts(histogram.counts.begin(), histogram.counts.end());
    counts[zero_bin] -= zeros;
    const Bins bins(std::move(counts));
    const auto levels = static_cast<std::size_t>(type.max() - type.min() + 1);
    const Candidate best = Search(bins, levels).run(zero_bin, zero_bin + 1);
    return {histogram.edge(best.begin), histogram.edge(best.end)};
  }
  const std::vector<std::int64_t> magnitudes = histogram.magnitudes();
  std::vector<double> counts(magnitudes.begin(), magnitudes.end());
  counts[0] -= zeros;
  const Bins bins(std::move(counts));
  const Candidate best = Search(bins, static_cast<std::size_t>(type.max()) + 1).run(0, 1);
  const double bound = static_cast<double>(best.end) * histogram.width();
  return {-bound, bound};
}

}  // namespace onnxpress
