// Weights that only functions multiply with.
#pragma once

#include <memory>

#include "graph/ir/model.h"

namespace onnxpress {

// The model with its functions in place of their calls, where this shows weights that operators in
// functions alone read; nullptr where it does not, or cannot be done.
std::unique_ptr<Model> with_function_weights(const Model& model);

}  // namespace onnxpress
