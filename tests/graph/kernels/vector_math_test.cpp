// The vector functions on every instruction set that this processor has.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/graph/kernels/vector_math_test.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

const hn::ScalableTag<float> d;

void exp_each(const float* in, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; i += hn::Lanes(d))
    hn::StoreU(vector_exp(d, hn::LoadU(d, in + i)), d, out + i);
}

void sigmoid_each(const float* in, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; i += hn::Lanes(d))
    hn::StoreU(vector_sigmoid(d, hn::LoadU(d, in + i)), d, out + i);
}

void tanh_each(const float* in, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; i += hn::Lanes(d))
    hn::StoreU(vector_tanh(d, hn::LoadU(d, in + i)), d, out + i);
}

void erf_each(const float* in, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; i += hn::Lanes(d))
    hn::StoreU(vector_erf(d, hn::LoadU(d, in + i)), d, out + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace onnxpress {
namespace {

HWY_EXPORT(exp_each);
HWY_EXPORT(sigmoid_each);
HWY_EXPORT(tanh_each);
HWY_EXPORT(erf_each);

void exps(const float* in, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(exp_each)(in, out, count);
}
void sigmoids(const float* in, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(sigmoid_each)(in, out, count);
}
void tanhs(const float* in, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(tanh_each)(in, out, count);
}
void erfs(const float* in, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(erf_each)(in, out, count);
}

// Floats of all magnitudes, infinities and NaN among them, and those where something happens;
// a multiple of every vector length.
std::vector<float> samples() {
  std::vector<float> values;
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 65521)
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  for (int i = -11000; i <= 11000; ++i) values.push_back(static_cast<float>(i) * 0.01f);
  for (const float sign : {1.0f, -1.0f}) {
    values.push_back(sign * std::numeric_limits<float>::infinity());
    values.push_back(sign * std::numeric_limits<float>::quiet_NaN());
    values.push_back(sign * std::numeric_limits<float>::max());
    values.push_back(sign * 0.0f);
  }
  values.resize((values.size() + 1023) / 1024 * 1024);
  return values;
}

// `evaluate` is chosen anew for every instruction set.
template <class Evaluate, class Exact>
void check_function(Evaluate&& evaluate, Exact&& exact, double tolerance) {
  const std::vector<float> in = samples();
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    std::vector<float> out(in.size());
    evaluate(in.data(), out.data(), in.size());
    int wrong = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      const double expected = exact(static_cast<double>(in[i]));
      const double found = static_cast<double>(out[i]);
      bool close = std::abs(found - expected) <= tolerance * std::abs(expected) + 1e-37;
      if (std::isnan(expected)) close = std::isnan(found);
      if (expected > static_cast<double>(std::numeric_limits<float>::max()))
        close = std::isinf(found);
      if (!close && ++wrong == 1) MESSAGE(in[i], ": expected ", expected, ", found ", found);
    }
    CHECK(wrong == 0);
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("vector functions are exact to the stated precision on every instruction set") {
  check_function(
      exps, [](double x) { return std::exp(x); }, 4e-7);
  check_function(
      sigmoids, [](double x) { return 1 / (1 + std::exp(-x)); }, 1e-6);
  check_function(
      tanhs, [](double x) { return std::tanh(x); }, 1e-6);
  check_function(
      erfs, [](double x) { return std::erf(x); }, 1e-6);
}

}  // namespace
}  // namespace onnxpress
#endif  // HWY_ONCE
