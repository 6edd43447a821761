#include "passes/quantize/kmeans.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace onnxpress {
namespace {

constexpr std::size_t most_cuts = 512;
constexpr std::size_t most_centers_by_programming = 16;
constexpr int most_iterations = 40;

// Sums over any range of the sorted numbers.
class Sums {
 public:
  explicit Sums(std::span<const float> sorted) : first_(sorted.size() + 1), second_(sorted.size() + 1) {
    for (std::size_t i = 0; i < sorted.size(); ++i) {
      const auto value = static_cast<double>(sorted[i]);
      first_[i + 1] = first_[i] + value;
      second_[i + 1] = second_[i] + value * value;
    }
  }

  double mean(std::size_t begin, std::size_t end) const {
    return (first_[end] - first_[begin]) / static_cast<double>(end - begin);
  }
  // Of squared distances to the mean.
  double spread(std::size_t begin, std::size_t end) const {
    if (begin == end) return 0;
    const double sum = first_[end] - first_[begin];
    return std::max(0.0, second_[end] - second_[begin] - sum * sum / static_cast<double>(end - begin));
  }

 private:
  std::vector<double> first_, second_;
};

// Places between unequal neighbours, and both ends: all of them when they are few, else some that are
// evenly spaced in number and in value.
std::vector<std::size_t> cut_places(std::span<const float> sorted) {
  std::vector<std::size_t> places{0};
  for (std::size_t i = 1; i < sorted.size() && places.size() <= most_cuts; ++i)
    if (sorted[i] != sorted[i - 1]) places.push_back(i);
  if (places.size() > most_cuts) {
    const auto start_of = [&](float value) {
      return static_cast<std::size_t>(std::ranges::lower_bound(sorted, value) - sorted.begin());
    };
    places.assign(1, 0);
    const double low = static_cast<double>(sorted.front()), width = static_cast<double>(sorted.back()) - low;
    constexpr std::size_t half = most_cuts / 2;
    for (std::size_t i = 1; i < half; ++i) {
      places.push_back(start_of(sorted[sorted.size() * i / half]));
      places.push_back(start_of(static_cast<float>(low + width * static_cast<double>(i) / half)));
    }
    std::ranges::sort(places);
    places.erase(std::unique(places.begin(), places.end()), places.end());
  }
  places.push_back(sorted.size());
  return places;
}

// best[j] for j in [begin, end): the least cost of the first j places in one more group than `before`
// has, and where that group starts, known to be in [low, high].
struct Stage {
  const Sums& sums;
  const std::vector<std::size_t>& places;
  const std::vector<double>& before;
  std::vector<double>& best;
  std::vector<std::uint32_t>& start;

  void solve(std::size_t begin, std::size_t end, std::size_t low, std::size_t high) const {
    if (begin >= end) return;
    const std::size_t j = begin + (end - begin) / 2;
    best[j] = std::numeric_limits<double>::infinity();
    std::size_t chosen = low;
    for (std::size_t i = low; i <= std::min(j, high); ++i) {
      const double cost = before[i] + sums.spread(places[i], places[j]);
      if (cost < best[j]) best[j] = cost, chosen = i;
    }
    start[j] = static_cast<std::uint32_t>(chosen);
    solve(begin, j, low, chosen);
    solve(j + 1, end, chosen, high);
  }
};

// Ends of the groups of the best partition.
std::vector<std::size_t> partition(const Sums& sums, const std::vector<std::size_t>& places, std::size_t count) {
  const std::size_t size = places.size();
  std::vector<double> before(size), best(size);
  for (std::size_t j = 0; j < size; ++j) before[j] = sums.spread(0, places[j]);
  std::vector<std::vector<std::uint32_t>> starts(count, std::vector<std::uint32_t>(size, 0));
  for (std::size_t group = 1; group < count; ++group) {
    Stage{sums, places, before, best, starts[group]}.solve(0, size, 0, size - 1);
    std::swap(before, best);
  }
  std::vector<std::size_t> ends(count);
  std::size_t j = size - 1;
  for (std::size_t group = count; group-- > 0; j = starts[group][j]) ends[group] = places[j];
  return ends;
}

std::vector<std::size_t> companded(std::span<const float> sorted, std::size_t count) {
  constexpr std::size_t bins = 1024;
  const double low = static_cast<double>(sorted.front()), width = static_cast<double>(sorted.back()) - low;
  std::vector<double> density(bins, 0);
  for (const float value : sorted) {
    const double place = (static_cast<double>(value) - low) / width * bins;
    density[std::min(bins - 1, static_cast<std::size_t>(place))] += 1;
  }
  double total = 0;
  for (double& bin : density) total += bin = std::cbrt(bin);
  std::vector<std::size_t> ends;
  double passed = 0;
  for (std::size_t bin = 0; bin < bins; ++bin) {
    passed += density[bin];
    const auto edge = static_cast<float>(low + width * static_cast<double>(bin + 1) / bins);
    const auto wanted = static_cast<std::size_t>(passed / total * static_cast<double>(count));
    while (ends.size() + 1 < count && ends.size() < wanted)
      ends.push_back(static_cast<std::size_t>(std::ranges::lower_bound(sorted, edge) - sorted.begin()));
  }
  ends.push_back(sorted.size());
  return ends;
}

}  // namespace

std::vector<float> k_means(std::span<const float> sorted, std::size_t count) {
  if (sorted.empty() || count == 0) return {};
  std::vector<float> distinct;
  for (const float value : sorted) {
    if (distinct.empty() || distinct.back() != value) distinct.push_back(value);
    if (distinct.size() > count) break;
  }
  if (distinct.size() <= count) return distinct;

  const Sums sums(sorted);
  std::vector<std::size_t> ends = count <= most_centers_by_programming
                                      ? partition(sums, cut_places(sorted), count)
                                      : companded(sorted, count);
  std::vector<double> centers;
  for (int iteration = 0;; ++iteration) {
    centers.clear();
    std::size_t begin = 0;
    for (const std::size_t end : ends) {
      if (end > begin) centers.push_back(sums.mean(begin, end));
      begin = std::max(begin, end);
    }
    if (iteration == most_iterations) break;
    std::vector<std::size_t> moved;
    for (std::size_t i = 0; i + 1 < centers.size(); ++i) {
      const auto middle = static_cast<float>((centers[i] + centers[i + 1]) / 2);
      moved.push_back(static_cast<std::size_t>(std::ranges::upper_bound(sorted, middle) - sorted.begin()));
    }
    moved.push_back(sorted.size());
    if (moved == ends) break;
    ends = std::move(moved);
  }
  return {centers.begin(), centers.end()};
}

}  // namespace onnxpress
