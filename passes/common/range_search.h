// Ranges by squared error: internal to calibration.
#pragma once

#include <utility>

#include "passes/common/calibration.h"

namespace onnxpress {

// The range with the least expected squared error on the grid that min_max_parameters makes of it,
// the error of values beyond the range counted `clipping` times, found by moving each end in turn,
// first in steps of 2^(1/8), then of 2^(1/64).
std::pair<double, double> least_error_range(const ValueStatistics& statistics, const QuantizedType& type,
                                            double clipping);

}  // namespace onnxpress
