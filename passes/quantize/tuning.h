// Between choosing grids and converting: what is trained with fake quantization.
#pragma once

#include <vector>

#include "passes/quantize/rounding.h"
#include "passes/quantize/static_grids.h"
#include "passes/quantize/static_plan.h"

namespace onnxpress {

// A weight with the grid that was chosen for it.
struct TunedWeight {
  Weight weight;
  QuantizedType type;
  Granularity granularity;
  RoundingResult* rounded = nullptr;  // holds a tensor; to be rounded anew by whoever changes weight or grid
};

// What a scheme is about to convert. A Tuner may change float constants of the model and the grids, and rounds the
// weights that it changed.
struct TunedGrids {
  std::vector<TunedWeight> weights;
  // Codes are not the nearest ones: a method chose them by what the weights are multiplied with.
  bool chosen_codes = false;
  // scheme=static: which values are quantized, and the grid of each group.
  const StaticPlan* plan = nullptr;
  std::vector<ActivationGrid>* activations = nullptr;
  const StaticTypes* kinds = nullptr;
};

// Hands rounded weights of a scheme without a plan to the request's tuner, if it has one.
void tune_weights(Model& model, const std::vector<RoundingTask>& tasks, std::vector<RoundingResult>& results,
                  const QuantizeRequest& request);

}  // namespace onnxpress
