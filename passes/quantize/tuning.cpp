#include "passes/quantize/tuning.h"

namespace onnxpress {

void tune_weights(Model& model, const std::vector<RoundingTask>& tasks, std::vector<RoundingResult>& results,
                  const QuantizeRequest& request) {
  if (!request.tune) return;
  TunedGrids grids{.weights = {}, .chosen_codes = request.rounds_by_inputs()};
  for (std::size_t i = 0; i < tasks.size(); ++i)
    if (results[i].quantized)
      grids.weights.push_back({tasks[i].weight, tasks[i].type, tasks[i].granularity, &results[i]});
  request.tune(model, grids);
}

}  // namespace onnxpress
