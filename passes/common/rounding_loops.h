// Loops that round weights, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstdint>

namespace onnxpress {

// low = min(low, x[i]), high = max(high, x[i]) over all i. False when one is NaN or infinite: low
// and high mean nothing then.
bool range_loop(const float* x, std::int64_t count, float& low, float& high);
// The same for low[i], high[i] and x[i], each i by itself.
bool ranges_loop(const float* x, std::int64_t count, float* low, float* high);

struct RoundingSums {
  double signal = 0, noise = 0;       // of squares: x, and x less what its code stands for
  std::int64_t zeros = 0, clipped = 0;  // codes that stand for 0; values half a step or more outside

  RoundingSums& operator+=(const RoundingSums& other) {
    signal += other.signal;
    noise += other.noise;
    zeros += other.zeros;
    clipped += other.clipped;
    return *this;
  }
};

// codes[i] = clamp(round(x[i] / scale[i]) + zero[i], low, high), ties to even, and adds to `sums`.
// All of x is finite; low and high are codes of T (int8, uint8, int16, uint16).
template <class T>
void round_loop(const float* x, const float* scale, const float* zero, std::int64_t count, float low, float high,
                T* codes, RoundingSums& sums);

}  // namespace onnxpress
