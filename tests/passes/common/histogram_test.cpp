#include "passes/common/histogram.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "graph/base/random.h"
#include "passes/common/exact_sum.h"

namespace onnxpress {
namespace {

Histogram of(const std::vector<float>& values) {
  Histogram histogram;
  for (const float x : values) {
    histogram.cover(x, x);
    histogram.add(x);
  }
  return histogram;
}

TEST_CASE("bins are anchored at zero and reach from the smallest to the largest value") {
  const Histogram histogram = of({0.5F, 3.0F, -1.0F});
  CHECK(histogram.exponent == -9);  // 4 * 2^10 bins of 2^-10 and one more would be too many
  CHECK(histogram.first == -512);
  CHECK(histogram.counts.size() == 512 + 3 * 512 + 1);
  CHECK(histogram.total() == 3);
  CHECK(histogram.edge(0) == -1.0);
  CHECK(histogram.counts.front() == 1);
  CHECK(histogram.counts.back() == 1);
}

TEST_CASE("the order of values changes nothing") {
  Random random(3);
  std::vector<float> values;
  for (int i = 0; i < 400; ++i)
    values.push_back(static_cast<float>(random.normal() * std::exp2(random.uniform(-60, 60))));
  values.insert(values.end(), {0.0F, -0.0F, 1e-44F, -1e-44F, 3e38F, -3e38F});
  const Histogram expected = of(values);
  CHECK(expected.total() == static_cast<std::int64_t>(values.size()));
  CHECK(expected.counts.size() <= Histogram::most_bins);
  for (int i = 0; i < 20; ++i) {
    for (std::size_t k = values.size(); k > 1; --k) std::swap(values[k - 1], values[random.below(k)]);
    CHECK(of(values) == expected);
  }
  std::ranges::sort(values);
  CHECK(of(values) == expected);
  std::ranges::reverse(values);
  CHECK(of(values) == expected);
}

TEST_CASE("values of one sign and single values") {
  CHECK(of({}).total() == 0);
  const Histogram zero = of({0.0F, -0.0F});
  CHECK(zero.counts == std::vector<std::int64_t>{2});
  CHECK(zero.first == 0);
  const Histogram negative = of({-2.0F, -1.0F});
  CHECK(negative.edge(negative.counts.size()) == negative.width());  // zero's bin is the last
  const Histogram huge = of({std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()});
  CHECK(huge.counts.front() == 1);
  CHECK(huge.counts.back() == 1);
}

TEST_CASE("sums do not depend on the order and lose nothing") {
  Random random(5);
  std::vector<double> terms;
  for (int i = 0; i < 300; ++i)
    terms.push_back(static_cast<float>(random.normal() * std::exp2(random.uniform(-100, 100))));
  ExactSum forward, backward, cancelled;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    forward.add(terms[i]);
    backward.add(terms[terms.size() - 1 - i]);
    cancelled.add(terms[i]);
  }
  CHECK(forward.value() == backward.value());
  cancelled.add(1e-40F);
  for (const double term : terms) cancelled.add(-term);
  CHECK(cancelled.value() == double{1e-40F});
  ExactSum smallest;
  smallest.add(-double{std::numeric_limits<float>::denorm_min()});
  CHECK(smallest.value() == -double{std::numeric_limits<float>::denorm_min()});
  ExactSum large;
  for (int i = 0; i < 1000; ++i) large.add(-double{std::numeric_limits<float>::max()} * 4096);
  CHECK(large.value() == doctest::Approx(-double{std::numeric_limits<float>::max()} * 4096e3));
}

}  // namespace
}  // namespace onnxpress
