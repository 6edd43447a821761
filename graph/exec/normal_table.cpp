#include "graph/exec/normal_table.h"

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace onnxpress {
namespace {

// The distribution's lower half, each quantile searched from the one before; the upper one is its mirror image.
std::vector<float> make_table() {
  constexpr std::size_t size = 65536, half = size / 2;
  std::vector<double> quantiles(half);
  double x = 0, squares = 0;
  for (std::size_t k = 0; k < half; ++k) {  // outwards from the middle
    const std::size_t i = half - 1 - k;
    const double wanted = (static_cast<double>(i) + 0.5) / static_cast<double>(size);
    for (int round = 0; round < 50; ++round) {
      const double below = 0.5 * std::erfc(-x / std::numbers::sqrt2);
      const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
      // Newton's method on the logarithm, which is concave: it settles from everywhere.
      const double step = below * (std::log(below) - std::log(wanted)) / density;
      x -= step;
      if (std::abs(step) < 1e-12) break;
    }
    quantiles[i] = x;
    squares += x * x;
  }
  const double scale = std::sqrt(static_cast<double>(half) / squares);
  std::vector<float> table(size);
  for (std::size_t i = 0; i < half; ++i) {
    table[i] = static_cast<float>(quantiles[i] * scale);
    table[size - 1 - i] = -table[i];
  }
  return table;
}

}  // namespace

std::span<const float> normal_table() {
  static const std::vector<float> table = make_table();
  return table;
}

}  // namespace onnxpress
