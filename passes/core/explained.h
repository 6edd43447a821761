// What --explain can be asked about.
#pragma once

#include <string>
#include <vector>

#include "passes/core/pipeline.h"

namespace onnxpress {

// Passes of the pipeline, members of its groups, and the rules of both for a model of this opset.
std::vector<std::string> explained_names(const Pipeline& pipeline, const Model& model);

// Throws Error, with the nearest name, when `name` is none of them.
void check_explained(const std::string& name, const Pipeline& pipeline, const Model& model);

}  // namespace onnxpress
