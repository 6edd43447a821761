// Ranges by squared error: internal to calibration.
#pragma once

#include <utility>

#include "passes/common/calibration.h"

namespace onnxpress {

// The range with the least expected squared error on the grid that min_max_parameters makes of it,
// found by moving each end in turn, first in steps of 2^(1/8), then of 2^(1/64).
std::pair<double, double> least_error_range(const ValueStatistics& statistics, const QuantizedType& type);

// The widest range between that one and the range of all values that is worse by at most
// `slack_db`: as good on these values, and it clips the least of others.
std::pair<double, double> widest_good_range(const ValueStatistics& statistics, const QuantizedType& type,
                                            double slack_db);

}  // namespace onnxpress
