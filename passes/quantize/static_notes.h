// What a static quantization tells its user beside the records of its tensors.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "passes/common/calibration.h"
#include "passes/quantize/static_grids.h"
#include "passes/quantize/static_plan.h"

namespace onnxpress {

// Values that the notes look at beside the coded ones: those that a Concat in float joins, and
// of which a mask in front of Softmax is made.
std::set<std::string, std::less<>> static_note_values(const StaticPlan& plan);

// Of the model before it is converted: nodes that cost speed in float (BatchNormalization that is not
// folded), Concats of values with very different ranges, masked and coarse inputs of Softmax, what the target does not run on integers;
// `by_block`: whether weights have scales by block.
std::vector<std::string> static_notes(const StaticPlan& plan, const Calibration& calibration,
                                      const StaticTypes& kinds, const std::vector<ActivationGrid>& grids,
                                      bool by_block);

// Why nodes with floating-point results are, in whole or in part, left in float.
std::vector<NearMiss> static_near_misses(const StaticPlan& plan, const TypeInference& types, std::string_view pass);

}  // namespace onnxpress
