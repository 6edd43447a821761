#include "passes/common/histogram.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace onnxpress {

double Histogram::width() const { return std::ldexp(1.0, exponent); }

std::int64_t Histogram::total() const {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

double Histogram::edge(std::size_t index) const {
  return static_cast<double>(first + static_cast<std::int64_t>(index)) * width();
}

std::vector<std::int64_t> Histogram::magnitudes() const {
  const auto zero = static_cast<std::size_t>(-first);
  const std::size_t above = counts.size() - zero;
  std::vector<std::int64_t> folded(std::max(above, zero));
  for (std::size_t i = 0; i < above; ++i) folded[i] += counts[zero + i];
  for (std::size_t i = 0; i < zero; ++i) folded[i] += counts[zero - 1 - i];
  return folded;
}

void Histogram::cover(float low, float high) {
  const bool is_empty = counts.empty();
  const std::int64_t old_last = first + static_cast<std::int64_t>(counts.size()) - 1;
  int target = exponent;
  double from = 0, to = 0;
  for (;; ++target) {
    from = std::floor(std::ldexp(std::min(double{low}, 0.0), -target));
    to = std::floor(std::ldexp(std::max(double{high}, 0.0), -target));
    const int shift = std::min(target - exponent, 62);
    if (!is_empty) {
      from = std::min(from, static_cast<double>(first >> shift));
      to = std::max(to, static_cast<double>(old_last >> shift));
    }
    if (to - from < double{most_bins}) break;
  }
  const int shift = std::min(target - exponent, 62);
  const auto new_first = static_cast<std::int64_t>(from);
  const auto size = static_cast<std::size_t>(to - from) + 1;
  if (shift == 0 && new_first == first && size == counts.size()) return;
  std::vector<std::int64_t> widened(size);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::int64_t bin = (first + static_cast<std::int64_t>(i)) >> shift;
    widened[static_cast<std::size_t>(bin - new_first)] += counts[i];
  }
  exponent = target;
  first = new_first;
  counts = std::move(widened);
}

void Histogram::add(float value, std::int64_t count) {
  const auto bin = static_cast<std::int64_t>(std::floor(std::ldexp(double{value}, -exponent)));
  counts[static_cast<std::size_t>(bin - first)] += count;
}

}  // namespace onnxpress
