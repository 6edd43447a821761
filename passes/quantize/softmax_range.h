// Ranges of values that only Softmax reads, or that are only added up for it, where a mask is in them.
//
// Attention masks add a very negative number (-10000, or the most negative float) where nothing shall
// be looked at. A range that reaches that far leaves a handful of levels for all other scores, though
// Softmax makes 0 of anything far enough below them.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "passes/common/calibration.h"
#include "passes/quantize/static_plan.h"

namespace onnxpress {

// Keys of what unmasked_ranges looks at beside the coded values.
std::set<std::string, std::less<>> softmax_operands(const StaticPlan& plan);

// By group of the plan: the range of its values without what is masked, where there is such. Nothing:
// values are read otherwise, none is masked, or it is unknown which are.
//
// Not masked are the largest element that a Softmax reads and those with no empty stretch of 32 or more
// between them and it; where the histogram is too coarse to show it, what the value was added up (Add)
// or chosen (Where) from tells. Its range begins 10 below the smallest of them, where Softmax gives less
// than exp(-10) of that element's weight, and that of what is added up to it as far down as no sum gets
// above that.
std::vector<std::optional<std::pair<float, float>>> unmasked_ranges(const StaticPlan& plan, const Calibration& calibration);

// StaticPlan::masked_constants: of those that are added up to what Softmax reads on codes.
std::map<std::string, float, std::less<>> masked_constants(const StaticPlan& plan, const Calibration& calibration);

}  // namespace onnxpress
