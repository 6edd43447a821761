// Optimizer loops against their formulas.
#include "graph/kernels/optimizer_loops.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "graph/base/random.h"

namespace onnxpress {
namespace {

constexpr std::int64_t count = 39;  // whole vectors and a rest

template <class T>
std::vector<T> random_values(std::uint64_t seed) {
  Random random(seed);
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(random.normal());
  values[3] = 0;
  return values;
}

constexpr double factor = 0.5, limit = 0.4, l1 = 0.01, l2 = 0.1, rate = 0.05, keep = 0.99;

template <class T>
GradientTerms<T> terms() {
  return {.factor = T(factor), .limit = T(limit), .l1 = T(l1), .l2 = T(l2)};
}

double slope(double g, double w) {
  return std::clamp(g * factor, -limit, limit) + l2 * w + (w > 0 ? l1 : w < 0 ? -l1 : 0);
}

template <class T>
void check(const std::vector<T>& found, const std::vector<double>& expected) {
  const double epsilon = sizeof(T) == 4 ? 1e-6 : 1e-14;
  for (std::size_t i = 0; i < found.size(); ++i)
    CHECK(std::abs(static_cast<double>(found[i]) - expected[i]) <= epsilon * (1 + std::abs(expected[i])));
}

// One step of a loop on values of T, and of a formula (i, w, g, m, v) on doubles.
template <class T, class Loop, class Formula>
void compare(const Loop& loop, const Formula& formula) {
  auto w = random_values<T>(1), m = random_values<T>(3), v = random_values<T>(4);
  const auto g = random_values<T>(2);
  for (T& value : v) value = value * value;
  const auto wide = [](const std::vector<T>& values) { return std::vector<double>(values.begin(), values.end()); };
  auto expected_w = wide(w), expected_m = wide(m), expected_v = wide(v);
  for (std::size_t i = 0; i < w.size(); ++i)
    formula(expected_w[i], slope(static_cast<double>(g[i]), expected_w[i]), expected_m[i], expected_v[i]);
  loop(w.data(), g.data(), m.data(), v.data());
  check(w, expected_w);
  check(m, expected_m);
  check(v, expected_v);
}

template <class T>
void check_methods() {
  const GradientTerms<T> with = terms<T>();
  for (const bool nesterov : {false, true})
    compare<T>(
        [&](T* w, const T* g, T* m, T*) {
          momentum_loop<T>({.rate = T(rate), .keep = T(keep), .momentum = T(0.9), .nesterov = nesterov}, with, w, g, m,
                           count);
        },
        [&](double& w, double slope, double& m, double&) {
          m = 0.9 * m + slope;
          w = keep * w - rate * (nesterov ? slope + 0.9 * m : m);
        });
  compare<T>(
      [&](T* w, const T* g, T*, T*) {
        momentum_loop<T>({.rate = T(rate), .keep = T(keep)}, with, w, g, nullptr, count);
      },
      [](double& w, double slope, double&, double&) { w = keep * w - rate * slope; });
  compare<T>(
      [&](T* w, const T* g, T* m, T* v) {
        adam_loop<T>({.size = T(rate),
                      .scale = T(1.5),
                      .keep = T(keep),
                      .beta1 = T(0.9),
                      .rest1 = T(0.1),
                      .beta2 = T(0.99),
                      .rest2 = T(0.01),
                      .epsilon = T(1e-3)},
                     with, w, g, m, v, count);
      },
      [](double& w, double slope, double& m, double& v) {
        m = 0.9 * m + 0.1 * slope;
        v = 0.99 * v + 0.01 * slope * slope;
        w = keep * w - rate * m / (std::sqrt(v) * 1.5 + 1e-3);
      });
  compare<T>(
      [&](T* w, const T* g, T*, T* v) {
        rmsprop_loop<T>({.rate = T(rate), .keep = T(keep), .smoothing = T(0.9), .rest = T(0.1), .epsilon = T(1e-3)},
                        with, w, g, v, count);
      },
      [](double& w, double slope, double&, double& v) {
        v = 0.9 * v + 0.1 * slope * slope;
        w = keep * w - rate * slope / (std::sqrt(v) + 1e-3);
      });
}

TEST_CASE("optimizer loops follow their formulas") {
  check_methods<float>();
  check_methods<double>();
  const auto g = random_values<float>(5);
  double squares = 0;
  for (const float value : g) squares += static_cast<double>(value) * static_cast<double>(value);
  CHECK(squares_loop(g.data(), count) == doctest::Approx(squares).epsilon(1e-14));
  const std::vector<double> wide(g.begin(), g.end());
  CHECK(squares_loop(wide.data(), count) == doctest::Approx(squares).epsilon(1e-14));
}

TEST_CASE("a gradient that is no number stays none") {
  std::vector<float> w = {1, 2, 3}, m = {0, 0, 0};
  const std::vector<float> g = {NAN, INFINITY, 1};
  momentum_loop<float>({.rate = 0.1F}, {.limit = 1}, w.data(), g.data(), m.data(), 3);
  CHECK(std::isnan(w[0]));
  CHECK(w[1] == doctest::Approx(1.9));
  CHECK(w[2] == doctest::Approx(2.9));
}

}  // namespace
}  // namespace onnxpress
