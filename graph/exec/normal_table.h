// Normal numbers from random bits by one look-up: internal to graph/exec.
#pragma once

#include <span>

namespace onnxpress {

// The quantiles of the standard normal distribution at (i + 1/2) / 65536, i < 65536, scaled so that the
// variance of a number drawn with 16 random bits is 1. The farthest are +-4.33.
std::span<const float> normal_table();

}  // namespace onnxpress
