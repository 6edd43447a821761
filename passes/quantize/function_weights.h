// Weights that only functions multiply with.
#pragma once

#include <memory>

#include "graph/ir/model.h"

namespace onnxpress {

// The model with its functions in place of their calls, where this shows weights that operators in
// functions alone read, of at least twice the bytes that it adds to the file; else nullptr.
std::unique_ptr<Model> with_function_weights(const Model& model);

}  // namespace onnxpress
