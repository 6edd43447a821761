// A few rows of activations, spread over calibration data.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/core/pass.h"

namespace onnxpress {

struct SampledRows {
  std::size_t channels = 0;
  std::vector<float> values;  // [rows, channels]

  std::size_t rows() const { return channels == 0 ? 0 : values.size() / channels; }
};

// For values by calibration_key(), with the axis of their channels: at most `most_rows` rows each, a row
// being the channels at one place of the other axes; evenly spaced places of every batch, at most
// `rows_per_batch`. Memory does not grow with the number of samples. Throws Error without data, and
// when the engine cannot run the model.
std::map<std::string, SampledRows, std::less<>> sample_rows(
    const Model& model, const std::map<std::string, std::int64_t, std::less<>>& values, PassContext& context,
    std::size_t most_rows, std::size_t rows_per_batch);

}  // namespace onnxpress
