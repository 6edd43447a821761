#include "graph/base/random.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

using onnxpress::Random;

TEST_CASE("the stream is xoshiro256** seeded through SplitMix64") {
  // From the authors' reference implementation, seed 42.
  Random random(42);
  const std::array<std::uint64_t, 4> expected = {0x15780B2E0C2EC716, 0x6104D9866D113A7E,
                                                 0xAE17533239E499A1, 0xECB8AD4703B360A1};
  for (const std::uint64_t value : expected) CHECK(random.next() == value);
}

TEST_CASE("uniform numbers fill their range evenly") {
  Random random(1);
  std::array<int, 10> counts{};
  double sum = 0;
  constexpr int draws = 100000;
  for (int i = 0; i < draws; ++i) {
    const double value = random.uniform();
    REQUIRE(value >= 0);
    REQUIRE(value < 1);
    ++counts[static_cast<std::size_t>(value * 10)];
    sum += random.uniform(-3, 5);
  }
  for (const int count : counts) CHECK(std::abs(count - draws / 10) < 500);
  CHECK(sum / draws == doctest::Approx(1).epsilon(0.02));
}

TEST_CASE("normal numbers have the moments and tails of the normal distribution") {
  Random random(2);
  constexpr int draws = 200000;
  double sum = 0, squares = 0, cubes = 0, fourths = 0;
  int beyond_two = 0;
  for (int i = 0; i < draws; ++i) {
    const double value = random.normal();
    REQUIRE(std::isfinite(value));
    sum += value;
    squares += value * value;
    cubes += value * value * value;
    fourths += value * value * value * value;
    beyond_two += std::fabs(value) > 2;
  }
  CHECK(std::fabs(sum / draws) < 0.01);
  CHECK(squares / draws == doctest::Approx(1).epsilon(0.015));
  CHECK(std::fabs(cubes / draws) < 0.03);
  CHECK(fourths / draws == doctest::Approx(3).epsilon(0.03));
  CHECK(beyond_two / double(draws) == doctest::Approx(0.0455).epsilon(0.05));
}

TEST_CASE("normal is Box-Muller to within rounding, and its bits are fixed") {
  Random random(3), same(3);
  for (int i = 0; i < 10000; ++i) {
    const double u = random.uniform();
    const double turns = random.uniform();
    const double expected =
        std::sqrt(-2 * std::log(1 - u)) * std::cos(2 * 3.14159265358979323846 * turns);
    CHECK(std::fabs(same.normal() - expected) < 1e-14 * (1 + std::fabs(expected)));
  }
  Random fixed(7);
  std::uint64_t mixed = 0;
  for (int i = 0; i < 1000; ++i) {
    const double value = fixed.normal();
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof word);
    mixed = mixed * 31 + word;
  }
  CHECK(mixed == 16166634400141998324u);
}

TEST_CASE("below is unbiased and in range") {
  Random random(4);
  std::array<int, 6> counts{};
  for (int i = 0; i < 60000; ++i) ++counts[random.below(6)];
  for (const int count : counts) CHECK(std::abs(count - 10000) < 400);
  CHECK(random.below(1) == 0);
  // With a bound of 3/4 of the range, plain remainders would favour the low third 2 : 1.
  int low = 0;
  const std::uint64_t bound = (std::uint64_t{1} << 63) + (std::uint64_t{1} << 62);
  for (int i = 0; i < 30000; ++i) low += random.below(bound) < bound / 3;
  CHECK(std::abs(low - 10000) < 400);
}

TEST_CASE("split streams depend on seed and index only, and differ") {
  Random random(5);
  const std::uint64_t before = random.split(9).next();
  random.next();
  CHECK(random.split(9).next() == before);
  std::set<std::uint64_t> values;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Random parent(seed);
    values.insert(Random(seed).next());
    for (std::uint64_t index = 0; index < 50; ++index) values.insert(parent.split(index).next());
  }
  CHECK(values.size() == 50 * 51);
}
