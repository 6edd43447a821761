// What the runner writes down of a step: internal to it.
#pragma once

#include <string>

#include "passes/core/runner.h"

namespace onnxpress {

// With these dims of inputs; bytes are those of the model as it is. `similar`: as for model_stats().
ModelStats measure(const Model& model, const InputShapes& shapes, const ModelStats* similar);

void set_sizes(PassRecord& record, const ModelStats& before, const ModelStats& after);

// "calibration: digits.npz"; empty without data.
std::string describe_data(const RunOptions& options);

}  // namespace onnxpress
