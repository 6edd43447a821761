#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "passes/common/calibration.h"
#include "passes/common/rounding_error.h"

namespace onnxpress {
namespace {

constexpr QuantizedType uint8{8, false, DType::uint8}, int8{8, true, DType::int8}, uint4{4, false, DType::uint4},
    int4{4, true, DType::int4}, uint16{16, false, DType::uint16};
constexpr RangeMethod all_methods[] = {RangeMethod::minmax,  RangeMethod::ema, RangeMethod::percentile,
                                       RangeMethod::entropy, RangeMethod::mse, RangeMethod::snr};

ValueStatistics statistics_of(const std::vector<float>& values) {
  ValueStatistics statistics;
  for (const float x : values) {
    statistics.histogram.cover(x, x);
    statistics.histogram.add(x);
    statistics.zeros += x == 0;
    statistics.min = statistics.count ? std::min(statistics.min, x) : x;
    statistics.max = statistics.count ? std::max(statistics.max, x) : x;
    ++statistics.count;
  }
  statistics.ema_min = statistics.min;
  statistics.ema_max = statistics.max;
  return statistics;
}

std::vector<float> normal_values(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& x : values) x = static_cast<float>(random.normal());
  return values;
}

std::vector<float> laplace_values(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& x : values)
    x = static_cast<float>(-std::log(1 - random.uniform()) * (random.below(2) ? 1 : -1));
  return values;
}

// `clipping` times where a value lies beyond the levels.
double error_of(const std::vector<float>& values, std::pair<float, float> range, const QuantizedType& type,
                double clipping = 1) {
  const QuantizationParameters grid = min_max_parameters(range.first, range.second, type);
  double sum = 0;
  for (const float x : values) {
    const std::int64_t code = quantize(x, grid, type);
    const double error = double{dequantize(code, grid)} - double{x};
    const bool is_clipped = (code == type.min() && error > 0) || (code == type.max() && error < 0);
    sum += (is_clipped ? clipping : 1) * error * error;
  }
  return sum / static_cast<double>(values.size());
}

TEST_CASE("the expected error of a grid is the one measured") {
  std::vector<float> relu = normal_values(50000, 1);
  for (float& x : relu) x = std::max(x, 0.0F);
  for (const std::vector<float>& values : {normal_values(50000, 2), laplace_values(50000, 3), relu})
    for (const QuantizedType& type : {uint8, int8, uint4, int4, uint16})
      for (const float high : {0.5F, 2.0F, 4.5F, 9.0F}) {
        CAPTURE(type.bits);
        CAPTURE(high);
        const ValueStatistics statistics = statistics_of(values);
        const std::pair<float, float> range{std::max(statistics.min, -high), high};
        const QuantizationParameters grid = min_max_parameters(range.first, range.second, type);
        const auto found = rounding_error(statistics, Levels::of(grid, type));
        REQUIRE(found);
        const double measured = error_of(values, range, type);
        CHECK(found->mean_square == doctest::Approx(measured).epsilon(0.03));
        double power = 0, clipped = 0;
        const float low_edge = (static_cast<float>(type.min() - grid.zero_point) - 0.5F) * grid.scale;
        const float high_edge = (static_cast<float>(type.max() - grid.zero_point) + 0.5F) * grid.scale;
        for (const float x : values) {
          power += double{x} * double{x} / static_cast<double>(values.size());
          clipped += x < low_edge || x > high_edge;
        }
        CHECK(found->snr_db == doctest::Approx(10 * std::log10(power / measured)).epsilon(0.01));
        CHECK(found->clipped_share == doctest::Approx(clipped / static_cast<double>(values.size())).epsilon(0.02).scale(1e-3));
      }
  CHECK_FALSE(rounding_error(ValueStatistics(), {}));
}

TEST_CASE("every method gives a range within the values' that holds zero") {
  constexpr float largest = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<std::vector<float>> samples{
      {0, 0, 0}, {1, 1, 1}, {-2, -2}, {3, 5, 4}, {-1, -0.5F}, {tiny, tiny}, {-tiny, 1}, {largest, -largest, 0},
      {largest, 1, 2}, {1e-30F, -1e-30F}, normal_values(1000, 5), laplace_values(1000, 6)};
  for (std::size_t i = 0; i < samples.size(); ++i)
    for (const RangeMethod method : all_methods)
      for (const QuantizedType& type : {uint8, int8, uint4, int4, uint16}) {
        CAPTURE(i);
        CAPTURE(name(method));
        CAPTURE(type.bits);
        CAPTURE(type.symmetric);
        const ValueStatistics statistics = statistics_of(samples[i]);
        const auto [low, high] = choose_range(statistics, {.method = method, .type = type});
        CHECK(low <= 0);
        CHECK(high >= 0);
        CHECK(low >= std::min(statistics.min, 0.0F));
        CHECK(high <= std::max(statistics.max, 0.0F));
        CHECK_FALSE(std::isnan(low));
        CHECK((low < high || (statistics.min == 0 && statistics.max == 0)));
      }
  for (const RangeMethod method : all_methods)
    CHECK(choose_range(ValueStatistics(), {.method = method, .type = uint8}) == std::pair(0.0F, 0.0F));
}

TEST_CASE("methods that look at the distribution need histograms") {
  ValueStatistics statistics;
  statistics.count = 3;
  statistics.max = 2;
  CHECK(choose_range(statistics, {.method = RangeMethod::minmax}).second == 2);
  CHECK_THROWS_WITH_AS(choose_range(statistics, {.method = RangeMethod::entropy}),
                       "calibration 'entropy' needs histograms, found none", Error);
}

TEST_CASE("percentiles are those of the sorted values") {
  std::vector<float> values = normal_values(100000, 7);
  const ValueStatistics statistics = statistics_of(values);
  std::ranges::sort(values);
  const double width = statistics.histogram.width();
  for (const double percentile : {90.0, 99.0, 99.9, 99.99, 100.0}) {
    const double outside = (1 - percentile / 100) / 2;
    const auto at = [&](double share) {
      return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
    };
    const auto [low, high] = choose_range(statistics, {.method = RangeMethod::percentile, .percentile = percentile, .type = uint8});
    CHECK(std::fabs(low - at(outside)) <= width);
    CHECK(std::fabs(high - at(1 - outside)) <= width);
  }
  const auto [low, high] = choose_range(statistics, {.method = RangeMethod::percentile, .percentile = 99, .type = int8});
  CHECK(low == -high);
  CHECK(high == doctest::Approx(2.5758).epsilon(0.01));  // two-sided 99 % of a normal distribution
}

// The best of many ranges by the error measured on the values themselves.
double least_measured(const std::vector<float>& values, const QuantizedType& type, double clipping) {
  const auto [min, max] = std::ranges::minmax(values);
  double least = std::numeric_limits<double>::infinity();
  const int ends = type.symmetric || min >= 0 ? 1 : 40;
  for (int a = 1; a <= ends; ++a)
    for (int b = 1; b <= 60; ++b) {
      const float high = max * static_cast<float>(b) / 60;
      const float low = type.symmetric ? std::max(min, -high) : min >= 0 ? 0.0F : min * static_cast<float>(a) / 40;
      least = std::min(least, error_of(values, {low, high}, type, clipping));
    }
  return least;
}

TEST_CASE("mse finds the least error, snr that which counts clipping four times") {
  std::vector<float> skewed = normal_values(4000, 8);
  for (float& x : skewed) x = x > 0 ? x * x * x : x * 0.3F;
  std::vector<float> relu = laplace_values(4000, 9);
  for (float& x : relu) x = std::max(x, 0.0F);
  std::vector<float> outlier = normal_values(4000, 10);
  outlier[7] = 20;
  for (const std::vector<float>& values : {normal_values(4000, 11), skewed, relu, outlier})
    for (const QuantizedType& type : {uint8, int8, uint4, int4}) {
      CAPTURE(type.bits);
      CAPTURE(type.symmetric);
      const ValueStatistics statistics = statistics_of(values);
      const auto mse = choose_range(statistics, {.method = RangeMethod::mse, .type = type});
      CHECK(error_of(values, mse, type) <= least_measured(values, type, 1) * 1.03);
      const auto snr = choose_range(statistics, {.method = RangeMethod::snr, .type = type});
      CHECK(error_of(values, snr, type, 4) <= least_measured(values, type, 4) * 1.05);
      CHECK(snr.second - snr.first >= mse.second - mse.first);
    }
}

// D(P || Q) as in the talk, bin by bin, of magnitudes up to bin `end`.
double divergence_of(const std::vector<double>& magnitudes, std::size_t end, std::size_t levels) {
  std::vector<double> p(magnitudes.begin(), magnitudes.begin() + static_cast<std::ptrdiff_t>(end));
  std::vector<double> q(end, 0.0);
  for (std::size_t i = end; i < magnitudes.size(); ++i) p.back() += magnitudes[i];
  for (std::size_t level = 0; level < levels; ++level) {
    const std::size_t from = level * end / levels, to = (level + 1) * end / levels;
    double sum = 0, filled = 0;
    for (std::size_t i = from; i < to; ++i) {
      sum += magnitudes[i];
      filled += magnitudes[i] > 0;
    }
    for (std::size_t i = from; i < to; ++i)
      if (magnitudes[i] > 0) q[i] = sum / filled;
  }
  double sum = 0, divergence = 0;
  for (const double x : p) sum += x;
  for (std::size_t i = 0; i < end; ++i)
    if (p[i] > 0) divergence += p[i] / sum * std::log(p[i] / std::max(q[i], 1e-4));
  return divergence;
}

TEST_CASE("entropy finds the least divergence") {
  for (const std::uint64_t seed : {1, 2, 3}) {
    std::vector<float> values = laplace_values(200000, seed);
    values[0] = 40;
    const ValueStatistics statistics = statistics_of(values);
    const std::vector<std::int64_t> counts = statistics.histogram.magnitudes();
    const std::vector<double> magnitudes(counts.begin(), counts.end());
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t end = 128; end <= magnitudes.size(); end += 3)
      least = std::min(least, divergence_of(magnitudes, end, 128));
    const auto [low, high] = choose_range(statistics, {.method = RangeMethod::entropy, .type = int8});
    CHECK(high < 30);
    const auto end = static_cast<std::size_t>(std::lround(high / statistics.histogram.width()));
    CHECK(divergence_of(magnitudes, end, 128) <= least * 1.1);
  }
}

TEST_CASE("entropy covers few values far from zero") {
  std::vector<float> values = normal_values(3000, 13);
  for (float& x : values) x = 10 + x / 2;
  const ValueStatistics statistics = statistics_of(values);
  for (const QuantizedType& type : {uint8, int8}) {
    const auto [low, high] = choose_range(statistics, {.method = RangeMethod::entropy, .type = type});
    CHECK(std::ranges::count_if(values, [top = high](float x) { return x > top; }) < 60);
  }
}

TEST_CASE("entropy clips both ends of asymmetric grids apart") {
  std::vector<float> values = normal_values(100000, 12);
  for (float& x : values) x = x > 0 ? x * 3 : x;
  values[0] = 60;
  const ValueStatistics statistics = statistics_of(values);
  const auto [low, high] = choose_range(statistics, {.method = RangeMethod::entropy, .type = uint8});
  CHECK(high < 30);
  CHECK(high > 6);
  CHECK(low < -2);
  // Exact zeros do not move the range.
  ValueStatistics with_zeros = statistics;
  with_zeros.zeros += 1000000;
  with_zeros.count += 1000000;
  with_zeros.histogram.add(0, 1000000);
  CHECK(choose_range(with_zeros, {.method = RangeMethod::entropy, .type = uint8}) == std::pair(low, high));
}

}  // namespace
}  // namespace onnxpress
