#include "passes/convert/value_ranges.h"

#include <algorithm>
#include <cmath>

#include "passes/common/calibration.h"

namespace onnxpress {

ValueRanges observe_ranges(const Model& model, PassContext& context) {
  const Calibration calibration =
      calibrate(model, context, {.histograms = false, .computed_constants = true, .generated_sets = 4});
  ValueRanges ranges{.source = calibration.data, .samples = calibration.samples, .generated = calibration.generated};
  const auto add = [&](const Value& value) {
    if (const ValueStatistics* found = calibration.find(value))
      ranges.largest[value.name()] = std::max(std::fabs(double{found->min}), std::fabs(double{found->max}));
  };
  for (const Value* input : model.graph.inputs()) add(*input);
  for (const Node* node : model.graph.nodes())
    for (const Value* output : node->outputs())
      if (output) add(*output);
  return ranges;
}

}  // namespace onnxpress
