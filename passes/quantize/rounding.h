// Choosing the codes of weights: round to nearest, and the methods that look at what the weights are
// multiplied with.
#pragma once

#include <optional>
#include <vector>

#include "passes/common/quantization.h"
#include "passes/common/weights.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// One weight to be rounded.
struct RoundingTask {
  Weight weight;
  QuantizedType type;
  Granularity granularity;
  GridOptions grid;
};

struct RoundingResult {
  std::optional<QuantizedTensor> quantized;  // nothing: see `obstacle`
  std::string obstacle;                      // why the weight has to stay in float
  // Of the operator's output on calibration data, when the method looked at it.
  std::optional<double> output_snr_db;
  std::string note;  // why another method than the one asked for was used; empty: none was
};

// The grid that a tensor's codes are on.
WeightGrid grid_of(const QuantizedTensor& quantized, const QuantizedType& type);

// Rounds the weights of `tasks` (in node order; of `model`, which stays as it is) by
// request.rounding. Weights with NaN or infinity, and those too small for any scale, have to stay in
// float. Where float16 scales are asked for and do not reach a weight, it has scales of its own type. Methods that need inputs run the model on context.calibration: Error without.
std::vector<RoundingResult> round_weights(const Model& model, const std::vector<RoundingTask>& tasks,
                                          PassContext& context, const QuantizeRequest& request);

}  // namespace onnxpress
