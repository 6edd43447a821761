// Why quantizing a layer hurts, as far as its numbers show.
#pragma once

#include <string>
#include <vector>

#include "passes/common/calibration.h"
#include "passes/quantize/sensitivity.h"

namespace onnxpress {

struct Cause {
  std::string name;    // "weight outlier channel"
  std::string detail;  // "channel 12 of 'w' spans 41 times the median"
  std::string remedy;  // "granularity=channel, or equalize before"; may be empty
};

// Causes that are recognised of one unit, the likeliest first:
// - a channel (with one scale per tensor), or single elements (with one per channel), of a weight that
//   are far larger than the others;
// - an input few values of which are far out, or whose channels differ in size;
// - values cut off by the range that was chosen (`records` of the trial);
// - a Concat in front that joins ranges of very different size;
// - an int32 bias that does not hold the float one.
// `calibration` may lack values: then nothing is said of them.
std::vector<Cause> diagnose(const Model& model, const QuantizedUnit& unit, const QuantizeRequest& request,
                            const Calibration& calibration, const std::vector<Json>& records);

// What diagnose() wants to know of the inputs of the units' nodes.
CalibrationRequest diagnosis_request(const Model& model, const std::vector<QuantizedUnit>& units);

}  // namespace onnxpress
