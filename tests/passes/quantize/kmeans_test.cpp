#include "passes/quantize/kmeans.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/random.h"

namespace onnxpress {
namespace {

double cost(const std::vector<float>& values, const std::vector<float>& centers) {
  double sum = 0;
  for (const float value : values) {
    double least = std::numeric_limits<double>::infinity();
    for (const float center : centers)
      least = std::min(least, std::pow(static_cast<double>(value) - static_cast<double>(center), 2));
    sum += least;
  }
  return sum;
}

// Of all ways to cut `values` into `count` neighbouring groups.
double least_cost(const std::vector<float>& values, std::size_t begin, std::size_t count) {
  if (begin == values.size()) return 0;
  if (count == 0) return std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t end = begin + 1; end <= values.size(); ++end) {
    double mean = 0, spread = 0;
    for (std::size_t i = begin; i < end; ++i) mean += static_cast<double>(values[i]) / static_cast<double>(end - begin);
    for (std::size_t i = begin; i < end; ++i) spread += std::pow(static_cast<double>(values[i]) - mean, 2);
    best = std::min(best, spread + least_cost(values, end, count - 1));
  }
  return best;
}

std::vector<float> random_values(std::size_t size, double power, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(size);
  for (float& value : values) {
    const double x = random.uniform(-1, 1);
    value = static_cast<float>(std::copysign(std::pow(std::fabs(x), power), x));
  }
  std::ranges::sort(values);
  return values;
}

TEST_CASE("few numbers: the best of all partitions") {
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (std::size_t count = 1; count <= 4; ++count) {
      const std::vector<float> values = random_values(11, 3, seed);
      const std::vector<float> centers = k_means(values, count);
      CHECK(centers.size() == count);
      CHECK(std::ranges::is_sorted(centers));
      CHECK(cost(values, centers) == doctest::Approx(least_cost(values, 0, count)));
    }
}

TEST_CASE("edges") {
  CHECK(k_means({}, 4).empty());
  CHECK(k_means(std::vector<float>{1, 1, 1}, 4) == std::vector<float>{1});
  CHECK(k_means(std::vector<float>{-1, 0, 0, 2}, 3) == std::vector<float>{-1, 0, 2});
  CHECK(k_means(std::vector<float>{1, 3}, 1) == std::vector<float>{2});
  const std::vector<float> spread = {-3e38F, -1, 0, 1, 3e38F};
  for (const float center : k_means(spread, 2)) CHECK(std::isfinite(center));
}

// Lloyd's iterations from evenly spaced centers, restarted: what a plain implementation finds.
double restarted_cost(const std::vector<float>& values, std::size_t count) {
  double best = std::numeric_limits<double>::infinity();
  Random random(1);
  for (int restart = 0; restart < 5; ++restart) {
    std::vector<float> centers(count);
    for (float& center : centers) center = values[static_cast<std::size_t>(random.uniform(0, static_cast<double>(values.size()) - 1))];
    for (int iteration = 0; iteration < 50; ++iteration) {
      std::vector<double> sums(count), sizes(count);
      for (const float value : values) {
        const auto nearest = static_cast<std::size_t>(
            std::ranges::min_element(centers, {}, [&](float center) { return std::fabs(center - value); }) - centers.begin());
        sums[nearest] += static_cast<double>(value);
        sizes[nearest] += 1;
      }
      for (std::size_t i = 0; i < count; ++i)
        if (sizes[i] > 0) centers[i] = static_cast<float>(sums[i] / sizes[i]);
    }
    best = std::min(best, cost(values, centers));
  }
  return best;
}

TEST_CASE("many numbers and centers: no worse than restarted iterations") {
  for (const double power : {1.0, 3.0})
    for (const std::size_t count : {4, 16, 32}) {
      const std::vector<float> values = random_values(3000, power, 5);
      CAPTURE(power);
      CAPTURE(count);
      CHECK(cost(values, k_means(values, count)) <= 1.02 * restarted_cost(values, count));
    }
}

}  // namespace
}  // namespace onnxpress
