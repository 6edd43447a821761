// Writing QuantizeLinear and DequantizeLinear as planned.
#pragma once

#include <string>
#include <vector>

#include "passes/quantize/records.h"
#include "passes/quantize/static_grids.h"
#include "passes/quantize/static_plan.h"
#include "passes/quantize/static_weights.h"

namespace onnxpress {

struct StaticConversion {
  std::vector<QuantizedRecord> records;
  std::size_t quantize_nodes = 0, dequantize_nodes = 0;  // of activations
  std::size_t absorbed = 0;                              // Relu and Clip that the codes' saturation does
};

// Edits the model by patches: every coded value gets one QuantizeLinear, and one DequantizeLinear per
// graph that reads it; every weight and bias a DequantizeLinear. `calibration` is for the records.
StaticConversion convert_static(Model& model, const StaticPlan& plan, const std::vector<ActivationGrid>& grids,
                                const std::vector<StaticWeight>& weights, const std::vector<StaticBias>& biases,
                                const StaticTypes& kinds, const Calibration& calibration);

}  // namespace onnxpress
