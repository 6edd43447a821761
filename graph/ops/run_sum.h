// Sums over contiguous elements.
#pragma once

#include <cstdint>

namespace onnxpress {

// The sum of of(i) for i in [0, count), in float64 and in parts added in a fixed order, so that
// additions do not wait for one another.
template <class Fn>
double run_sum(std::int64_t count, Fn&& of) {
  constexpr std::int64_t parts = 8;
  double part[parts] = {};
  std::int64_t i = 0;
  for (; i + parts <= count; i += parts)
    for (std::int64_t j = 0; j < parts; ++j) part[j] += static_cast<double>(of(i + j));
  for (; i < count; ++i) part[0] += static_cast<double>(of(i));
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

}  // namespace onnxpress
