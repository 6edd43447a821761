// What a grid does to values of which a histogram is known.
#pragma once

#include <optional>
#include <vector>

#include "passes/common/calibration.h"
#include "passes/common/quantization.h"

namespace onnxpress {

// Evenly spaced levels k * scale, k in [lowest, highest].
struct Levels {
  double scale = 1, lowest = 0, highest = 0;

  static Levels of(const QuantizationParameters& parameters, const QuantizedType& type);
};

struct RoundingError {
  double mean_square = 0;    // expected square of x' - x
  double snr_db = 0;         // 10 log10(mean square of x / mean_square); infinity when exact
  double clipped_share = 0;  // of the values outside the grid's range
};

// The values of a histogram as a density: even within each bin, apart from those that are exactly
// zero, which any grid keeps.
class Density {
 public:
  // The statistics hold a histogram.
  explicit Density(const ValueStatistics& statistics);

  double mean_square() const { return power_; }
  // Expected squared error, in closed form for every bin, so that it holds for steps wider and
  // narrower than a bin alike. That of values beyond the last level counts `clipping` times.
  double mean_square_error(const Levels& levels, double clipping = 1) const;
  double share_outside(double low, double high) const;

 private:
  double width_ = 0, total_ = 0, power_ = 0;
  std::vector<double> edges_;   // of bins, one more than there are
  std::vector<double> counts_;  // without exact zeros
  std::vector<double> falls_;   // at each edge, the count before it less the one behind it
};

// Nothing when no value was seen or the statistics have no histogram.
std::optional<RoundingError> rounding_error(const ValueStatistics& statistics, const Levels& levels);

}  // namespace onnxpress
