// Ranges and histograms against loops written out, for every instruction set.
#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <vector>

#include "graph/base/random.h"
#include "graph/kernels/statistics_loops.h"

namespace onnxpress {
namespace {

template <class Body>
void on_every_target(const Body& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

std::vector<float> mixed_values(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& x : values) {
    const std::uint64_t kind = random.below(16);
    x = static_cast<float>(random.normal());
    if (kind == 0) x = 0.0F;
    if (kind == 1) x = -0.0F;
    if (kind == 2) x = std::numeric_limits<float>::quiet_NaN();
    if (kind == 3) x = random.below(2) ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity();
    if (kind == 4) x = random.below(2) ? 1e-42F : -1e-42F;
  }
  return values;
}

TEST_CASE("range of the finite values") {
  on_every_target([] {
    for (std::size_t count = 0; count < 150; count += count < 40 ? 1 : 11) {
      CAPTURE(count);
      const std::vector<float> values = mixed_values(count, count);
      FiniteRange expected{std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), 0};
      for (const float x : values) {
        if (!std::isfinite(x)) {
          ++expected.nonfinite;
          continue;
        }
        expected.min = std::min(expected.min, x + 0.0F);
        expected.max = std::max(expected.max, x + 0.0F);
      }
      const FiniteRange found = finite_range_loop(values.data(), static_cast<std::int64_t>(count));
      CHECK(found.min == expected.min);
      CHECK(found.max == expected.max);
      CHECK(found.nonfinite == expected.nonfinite);
    }
    const float zeros[] = {-0.0F, -0.0F, -0.0F};
    CHECK_FALSE(std::signbit(finite_range_loop(zeros, 3).min));
    CHECK_FALSE(std::signbit(finite_range_loop(zeros, 3).max));
  });
}

TEST_CASE("histogram of the finite values") {
  on_every_target([] {
    for (const std::size_t count : {0, 1, 7, 16, 33, 1000, 1024, 1025, 5000}) {
      CAPTURE(count);
      const std::vector<float> values = mixed_values(count, count + 1);
      const BinGrid grid{.bins_per_unit = 64, .first = -64 * 8};
      std::vector<std::uint32_t> expected(64 * 16), counts(64 * 16), spare(64 * 16);
      std::int64_t zeros = 0;
      for (const float x : values) {
        if (!std::isfinite(x)) continue;
        if (x == 0) {
          ++zeros;
          continue;
        }
        const auto bin = static_cast<std::int64_t>(std::floor(double{x} * 64));
        ++expected[static_cast<std::size_t>(bin - grid.first)];
      }
      CHECK(histogram_loop(values.data(), static_cast<std::int64_t>(count), grid, counts.data(), spare.data()) == zeros);
      for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += spare[i];
      CHECK(counts == expected);
    }
  });
}

TEST_CASE("negative values that vanish beside the width of a bin are below zero") {
  on_every_target([] {
    std::vector<float> values(40, -1e-38F);
    std::vector<std::uint32_t> counts(2), spare(2);
    CHECK(histogram_loop(values.data(), 40, {.bins_per_unit = std::ldexp(1.0F, -100), .first = -1}, counts.data(),
                         spare.data()) == 0);
    CHECK(counts[0] + spare[0] == 40);
  });
}

}  // namespace
}  // namespace onnxpress
