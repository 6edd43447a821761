// Histograms that widen as values come, to the same counts in whatever order they come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxpress {

// Counts of finite values in bins [i * width, (i + 1) * width), width = 2^exponent. The bins reach
// from the smallest value to the largest, zero included; pairs of them become one when they would
// be too many. So exponent, bins and counts depend on the values alone, not on their order.
struct Histogram {
  static constexpr int finest = -120;  // exponent of an empty histogram
  static constexpr std::size_t most_bins = 4096;

  int exponent = finest;
  std::int64_t first = 0;            // index i of counts[0]
  std::vector<std::int64_t> counts;  // at most most_bins; empty before the first value

  double width() const;
  std::int64_t total() const;
  // Lower edge of counts[index].
  double edge(std::size_t index) const;

  // Counts of magnitudes: bins of that width from zero on.
  std::vector<std::int64_t> magnitudes() const;

  // Widens the bins to hold low, high and zero; both are finite, low <= high.
  void cover(float low, float high);
  // Counts one value that the bins cover.
  void add(float value, std::int64_t count = 1);
  bool operator==(const Histogram&) const = default;
};

}  // namespace onnxpress
