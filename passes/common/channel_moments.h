// Means and variances by channel of values of a model, on calibration data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/core/pass.h"

namespace onnxpress {

struct ChannelMoments {
  std::int64_t count = 0;  // elements of one channel
  std::vector<double> mean, variance;
};

// A value of the main graph, by name, and its channel axis (negative: from the last).
struct ChannelsOf {
  std::string value;
  std::int64_t axis = 1;
};

// Runs the main graph as far as the values need on context.calibration, on at most `most_samples` of it
// (0: all); rows that only fill up a last batch are left out. One result per value, in order. Summed in
// double in the order of the data. Throws Error without data, for values that are not of the main
// graph, are not floating-point or whose channels change, and when the engine cannot run the model.
std::vector<ChannelMoments> measure_moments(const Model& model, const std::vector<ChannelsOf>& values,
                                            PassContext& context, std::int64_t most_samples = 0);

}  // namespace onnxpress
