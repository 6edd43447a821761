// Where dropout goes in a model that was exported without.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/common/selected_number.h"

namespace onnxpress {

// Ratios by value of the main graph, for TrainingMode::dropout. A number for everything is for the
// values that matrix products with trained weights read, behind the first trained layer (Srivastava
// et al. 2014, "Dropout"); selectors pick values by name or by the node that gives them.
std::map<std::string, double> dropout_places(const Model& model, const SelectedNumber& ratios,
                                             const std::vector<std::string>& trained);

}  // namespace onnxpress
