#include "graph/base/random.h"

#include <bit>
#include <cassert>
#include <cmath>

// libm's last bit differs between C libraries and instruction sets, so normal() has its own
// logarithm and cosine from plain arithmetic, which must not be fused.
#ifdef __clang__
#pragma clang fp contract(off)
#endif

namespace onnxpress {

namespace {

// SplitMix64 (Steele, Lea and Flood 2014).
std::uint64_t split_mix(std::uint64_t& state) {
  state += 0x9E3779B97F4A7C15u;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Natural logarithm of x > 0: x = m * 2^e with m in [2/3, 4/3), log m = 2 artanh((m - 1) / (m +
// 1)).
double portable_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 2.0 / 3.0) {
    m *= 2;
    --exponent;
  }
  const double z = (m - 1) / (m + 1);
  const double square = z * z;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) {
    sum *= square;
    sum += 1.0 / k;
  }
  constexpr double ln2 = 0.69314718055994530942;
  return exponent * ln2 + 2 * z * sum;
}

// cos(2 pi t) for t in [0, 1), by symmetry from the Taylor series on [0, pi/4].
double portable_cos_turns(double t) {
  constexpr double two_pi = 6.28318530717958647693;
  if (t > 0.5) t = 1 - t;
  const bool negative = t > 0.25;
  if (negative) t = 0.5 - t;
  double sum = 0;
  if (t <= 0.125) {
    const double square = (two_pi * t) * (two_pi * t);
    for (int k = 18; k >= 2; k -= 2) {
      sum += 1;
      sum *= -square / (k * (k - 1));
    }
    sum += 1;
  } else {
    const double x = two_pi * (0.25 - t);
    const double square = x * x;
    for (int k = 19; k >= 3; k -= 2) {
      sum += 1;
      sum *= -square / (k * (k - 1));
    }
    sum += 1;
    sum *= x;
  }
  return negative ? -sum : sum;
}

}  // namespace

Random::Random(std::uint64_t seed) : seed_(seed) {
  for (std::uint64_t& word : state_) word = split_mix(seed);
}

std::uint64_t Random::next() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Random::uniform(double low, double high) {
  const double fraction = uniform();
  return low + (high - low) * fraction;
}

double Random::normal() {
  const double radius = std::sqrt(-2 * portable_log(1 - uniform()));
  return radius * portable_cos_turns(uniform());
}

std::uint64_t Random::below(std::uint64_t bound) {
  assert(bound > 0);
  const std::uint64_t rejected = (0 - bound) % bound;  // 2^64 mod bound
  std::uint64_t value = next();
  while (value < rejected) value = next();
  return value % bound;
}

Random Random::split(std::uint64_t index) const {
  std::uint64_t stream = index;
  std::uint64_t mixed = seed_ ^ split_mix(stream);
  return Random(split_mix(mixed));
}

}  // namespace onnxpress
