// What can be said of a step without running the models: internal to the runner.
#pragma once

#include <optional>
#include <string>

#include "passes/core/runner.h"

namespace onnxpress {

// Throws Error when the step needs data or a teacher that the options do not hold.
void check_needs(const PipelineStep& step, const RunOptions& options);

// Throws Error when a selector that was given matches nothing: a mistake of the caller, not a failure
// of the pass.
void check_selectors(const PipelineStep& step, const Model& model);

// What of the interface (required inputs and outputs: number, names, types) changed, or nothing.
std::optional<std::string> changed_interface(const Model& before, const Model& after);

}  // namespace onnxpress
