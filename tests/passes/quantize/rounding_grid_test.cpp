#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "graph/base/random.h"
#include "passes/quantize/mse_grid.h"

namespace onnxpress {
namespace {

std::vector<float> normal_values(std::uint64_t seed, std::size_t count, double outlier = 0) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.normal());
  if (outlier != 0) values[count / 2] = static_cast<float>(outlier);
  return values;
}

ScaleRules rules_of(int bits, bool symmetric, DType stored = DType::float32, bool power_of_two = false) {
  return {{bits, symmetric, symmetric ? DType::int8 : DType::uint8}, stored, power_of_two};
}

double error_of(const std::vector<float>& values, const std::vector<float>& importance, const QuantizationParameters& p,
                const QuantizedType& type) {
  double total = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double rest = static_cast<double>(values[i]) - static_cast<double>(dequantize(quantize(values[i], p, type), p));
    total += rest * rest * (importance.empty() ? 1.0 : static_cast<double>(importance[i]));
  }
  return total;
}

// The least error of 4,000 scales for every zero point.
double least_error_by_trial(const std::vector<float>& values, const std::vector<float>& importance,
                            const QuantizedType& type) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  double least = std::numeric_limits<double>::infinity();
  for (std::int64_t zero = type.symmetric ? 0 : type.min(); zero <= (type.symmetric ? 0 : type.max()); ++zero)
    for (int i = 1; i <= 4000; ++i)
      least = std::min(least, error_of(values, importance, {largest * static_cast<float>(i) / 4000.0F, zero}, type));
  return least;
}

TEST_CASE("scales of few values are of least error") {
  for (const int bits : {2, 3, 4})
    for (const bool symmetric : {true, false})
      for (std::uint64_t seed = 0; seed < 6; ++seed) {
        CAPTURE(bits);
        CAPTURE(symmetric);
        CAPTURE(seed);
        const std::vector<float> values = normal_values(seed, 24, seed % 2 == 0 ? 0 : 6);
        std::vector<float> importance;
        if (seed % 3 == 0)
          for (const float value : normal_values(100 + seed, 24)) importance.push_back(value * value);
        const ScaleRules rules = rules_of(bits, symmetric);
        const double found = error_of(values, importance, least_error_parameters(values, importance, rules), rules.type);
        CHECK(found <= least_error_by_trial(values, importance, rules.type) * (1 + 1e-5));
      }
}

TEST_CASE("scales of many values are within a per cent of least error") {
  for (const int bits : {2, 3, 4, 6}) {
    CAPTURE(bits);
    const std::vector<float> values = normal_values(static_cast<std::uint64_t>(bits), 20000 / static_cast<std::size_t>(bits), 9);
    const ScaleRules rules = rules_of(bits, true);
    const double found = error_of(values, {}, least_error_parameters(values, {}, rules), rules.type);
    CHECK(found <= least_error_by_trial(values, {}, rules.type) * 1.01);
    CHECK(found < 0.9 * error_of(values, {}, min_max_parameters(-9, 9, rules.type), rules.type));
  }
}

TEST_CASE("scales keep to what can be stored") {
  const std::vector<float> values = normal_values(3, 50);
  for (const bool symmetric : {true, false}) {
    const float scale = least_error_parameters(values, {}, rules_of(3, symmetric, DType::float32, true)).scale;
    CHECK(std::exp2(std::round(std::log2(scale))) == scale);
    const float half = least_error_parameters(values, {}, rules_of(3, symmetric, DType::float16)).scale;
    CHECK(Tensor::scalar(half).cast(DType::float16).to_floats()[0] == half);
    const float by_halves = half_quadratic_parameters(values, rules_of(3, symmetric, DType::float16)).scale;
    CHECK(Tensor::scalar(by_halves).cast(DType::float16).to_floats()[0] == by_halves);
  }
}

TEST_CASE("zeros and values of one sign") {
  const std::vector<float> zeros(10, 0.0F), positive(10, 2.5F), negative(10, -2.5F);
  for (const bool symmetric : {true, false}) {
    CAPTURE(symmetric);
    const ScaleRules rules = rules_of(2, symmetric);
    for (const std::vector<float>& values : {zeros, positive, negative})
      CHECK(error_of(values, {}, least_error_parameters(values, {}, rules), rules.type) < 1e-9);
    CHECK(half_quadratic_parameters(zeros, rules).scale == 1);
    CHECK(error_of(positive, {}, half_quadratic_parameters(positive, rules), rules.type) < 1e-9);
  }
}

TEST_CASE("half-quadratic grids have less absolute error than those of the range") {
  for (const int bits : {2, 3, 4})
    for (const bool symmetric : {true, false}) {
      CAPTURE(bits);
      CAPTURE(symmetric);
      const std::vector<float> values = normal_values(static_cast<std::uint64_t>(bits), 64, 5);
      float low = 0, high = 0;
      for (const float value : values) {
        low = std::min(low, value);
        high = std::max(high, value);
      }
      const ScaleRules rules = rules_of(bits, symmetric);
      const auto absolute = [&](const QuantizationParameters& p) {
        double total = 0;
        for (const float value : values) total += std::abs(value - dequantize(quantize(value, p, rules.type), p));
        return total;
      };
      CHECK(absolute(half_quadratic_parameters(values, rules)) <
            absolute(min_max_parameters(low, high, rules.type)) * (bits == 2 ? 0.9 : 1.0));
    }
}

TEST_CASE("groups are chosen one by one, on any number of threads") {
  const std::vector<float> values = normal_values(5, 6 * 10 * 3);
  const Tensor weight = Tensor::of<float>({6, 10, 3}, values);
  const ScaleRules rules = rules_of(3, false);
  const auto choose = [&](std::span<const float> group, std::span<const float> importance) {
    return least_error_parameters(group, importance, rules);
  };
  for (const Granularity& granularity :
       {Granularity::per_tensor(), Granularity::per_channel(0), Granularity::per_channel(1), Granularity::per_block(1, 4)}) {
    ThreadPool one(1), three(3);
    const auto grid = chosen_grid(one, weight, granularity, rules, choose);
    const auto again = chosen_grid(three, weight, granularity, rules, choose);
    REQUIRE(grid);
    REQUIRE(again);
    REQUIRE(std::ssize(grid->parameters) == element_count(granularity.scale_dims(weight.dims())));
    for (std::size_t g = 0; g < grid->parameters.size(); ++g) {
      std::vector<float> group;
      for_each_scale_run(weight.dims(), granularity, [&](std::int64_t index, std::int64_t begin, std::int64_t count) {
        if (index == static_cast<std::int64_t>(g))
          group.insert(group.end(), values.begin() + begin, values.begin() + begin + count);
      });
      const QuantizationParameters expected = least_error_parameters(group, {}, rules);
      CHECK(grid->parameters[g].scale == expected.scale);
      CHECK(grid->parameters[g].zero_point == expected.zero_point);
      CHECK(again->parameters[g].scale == expected.scale);
    }
  }
  std::vector<float> bad = values;
  bad[7] = std::numeric_limits<float>::infinity();
  ThreadPool pool(1);
  CHECK_FALSE(chosen_grid(pool, Tensor::of<float>({6, 10, 3}, bad), Granularity::per_channel(0), rules, choose));
}

}  // namespace
}  // namespace onnxpress
