// Seeded random numbers that are the same on every platform and standard library.
#pragma once

#include <cstdint>

namespace onnxpress {

// xoshiro256** (Blackman and Vigna 2018), seeded through SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed);
  std::uint64_t next();
  double uniform();                           // [0, 1), 53 bits
  double uniform(double low, double high);
  double normal();                            // mean 0, variance 1 (Box-Muller)
  std::uint64_t below(std::uint64_t bound);   // [0, bound), unbiased; bound > 0
  // An independent stream for item `index`, the same whatever was drawn before.
  Random split(std::uint64_t index) const;

 private:
  std::uint64_t seed_;
  std::uint64_t state_[4];
};

}  // namespace onnxpress
