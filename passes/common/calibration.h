// Calibration: what the values of a model look like on data, and the ranges to quantize them with.
//
// Every batch is folded into the statistics and dropped, so memory does not grow with the number of
// samples. Counts are integers and bin widths powers of two anchored at zero, so that the order of
// batches, and on how many threads they run, changes no bit of the result (moving averages apart).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "passes/common/histogram.h"
#include "passes/common/quantization.h"
#include "passes/core/pass.h"

namespace onnxpress {

// What was seen of one value.
struct ValueStatistics {
  std::int64_t count = 0;      // finite elements
  std::int64_t nonfinite = 0;  // NaN and infinities, which are in nothing below
  std::int64_t zeros = 0;      // of both signs; 0 without histograms
  float min = 0, max = 0;              // of all samples; 0 when count is
  float ema_min = 0, ema_max = 0;      // moving average over batches, in the order of the data
  Histogram histogram;
  // By slice of `channel_axis`, when asked for.
  std::optional<std::int64_t> channel_axis;
  std::vector<float> channel_min, channel_max;
  std::vector<double> channel_mean;

  bool operator==(const ValueStatistics&) const = default;
};

// Statistics by value name (see calibration_key), with what they belong to.
struct Calibration {
  std::map<std::string, ValueStatistics, std::less<>> values;
  // Keys of floating-point values that were wanted and never computed: of a branch that was not
  // taken, or that no output depends on.
  std::set<std::string, std::less<>> unseen;
  // Structural (weights and names included), and of the data as the model is given it; only where a
  // cache is used.
  std::string model_hash, data_hash;
  std::string data;         // for people
  std::int64_t samples = 0;
  bool generated = false;   // random inputs: real ones may look otherwise

  const ValueStatistics* find(const Value& value) const;
};

// Name of a value across clones of its model: its own name, and for a value of a subgraph the names
// of the outputs and attributes around it. A value in the body of a function has one for each call,
// and only when the function is inlined: passes that look for it call inline_functions first.
std::string calibration_key(const Value& value);

struct CalibrationRequest {
  // Keys; empty: every floating-point value that is not computed from constants alone.
  std::set<std::string, std::less<>> values;
  // Keys -> axis of channel statistics (not negative); other tensors than of that rank have none.
  std::map<std::string, std::int64_t, std::less<>> channels;
  bool histograms = true;
  bool computed_constants = false;  // also values computed from constants alone
  // Without context.calibration: so many sets of generated inputs (probe_inputs).
  std::size_t generated_sets = 0;
};

// Runs the model on context.calibration, unless context.calibration_cache (a file, written as soon as
// the model has run) knows the result. A file of another model or of other data is refused (Error)
// with both hashes named; passes of one run that calibrate one after another (context.calibrated)
// share it. Throws Error for an empty set, for batches that do not fit the model, and when the engine cannot
// run the model; values that hold NaN or infinity are told in `nonfinite`. Constants, integers and
// booleans are not observed.
Calibration calibrate(const Model& model, PassContext& context, const CalibrationRequest& request);

// What a report should say of it, one line each: few samples, generated data, values that were
// constant or held NaN or infinity, values that were never computed.
std::vector<std::string> calibration_warnings(const Calibration& calibration);

// How a range is chosen.
enum class RangeMethod { minmax, ema, percentile, entropy, mse, snr };
std::string_view name(RangeMethod method);

struct RangeOptions {
  RangeMethod method = RangeMethod::minmax;
  double percentile = 99.999;  // share of the values inside, in per cent
  QuantizedType type;          // of the codes
};

// [low, high] to quantize the value with; holds zero. {0, 0} when nothing was seen.
std::pair<float, float> choose_range(const ValueStatistics& statistics, const RangeOptions& options);

}  // namespace onnxpress
