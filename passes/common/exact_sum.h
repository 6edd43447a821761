// Sums of floating-point numbers that do not depend on their order.
#pragma once

#include <array>
#include <cstdint>

namespace onnxpress {

// Adds doubles that are sums of float32 numbers without rounding: a fixed-point number of 384 bits
// in two's complement whose last bit stands for 2^-149, the smallest float32 (after U. Kulisch,
// "Advanced Arithmetic for the Digital Computer", 2002). Holds sums below 2^234.
class ExactSum {
 public:
  // A finite multiple of 2^-149, as every sum of float32 numbers in double precision is.
  void add(double value);
  // The nearest double, within a unit in its last place.
  double value() const;

 private:
  std::array<std::uint64_t, 6> words_{};  // least significant first
};

}  // namespace onnxpress
