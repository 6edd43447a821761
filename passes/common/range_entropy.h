// Ranges by relative entropy: internal to calibration.
#pragma once

#include <utility>

#include "passes/common/calibration.h"

namespace onnxpress {

// The range whose quantized distribution loses the least information: D(P || Q), where P is the
// histogram within the range, what lies outside counted in its outermost bins, and Q the same
// without the outside, each level's counts spread over the bins that hold any (S. Migacz, "8-bit
// Inference with TensorRT", GPU Technology Conference 2017, which searches the upper end of 2,048
// bins of magnitudes). Other than there, Q is a share of all values, not of those inside: a range
// beside nearly all of them, which would then lie in its last bin, must not look free of loss.
// Asymmetric grids are searched on both ends. Exact zeros are left out: any
// grid keeps them.
std::pair<double, double> entropy_range(const ValueStatistics& statistics, const QuantizedType& type);

}  // namespace onnxpress
