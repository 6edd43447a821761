// Rounding weights layer by layer, by what the layers do to calibration data.
#pragma once

#include <vector>

#include "passes/quantize/mse_grid.h"
#include "passes/quantize/rounding.h"

namespace onnxpress {

ScaleRules scale_rules(const RoundingTask& task);
// Whether levels are at equal distances and scales not bound to those of other groups.
bool has_free_scales(const RoundingTask& task);
// Rounding to nearest on the grid that `method`, mse or hqq, chooses for the weight alone; on that of
// its range, with a note, where it has no free scales.
RoundingResult round_on_own_grid(ThreadPool& pool, const RoundingTask& task, Rounding method);

// GPTQ or AdaRound, as request.rounding says. Layers are rounded in the order they run, those that do
// not depend on each other together; every layer sees the inputs that the layers rounded before
// give it, and aims at the output of the model as it was. Weights of other operators are rounded to
// nearest on grids of least error; the note says why. Throws Error without calibration data.
std::vector<RoundingResult> round_layers(const Model& model, const std::vector<RoundingTask>& tasks,
                                         PassContext& context, const QuantizeRequest& request);

}  // namespace onnxpress
