// Matrices that a model holds twice, the second time transposed: embeddings and the output layer.
#pragma once

#include <cstddef>
#include <vector>

#include "passes/common/weights.h"

namespace onnxpress {

// Every matrix of `weights` that is, element by element, the transpose of one before it in the same
// graph becomes Transpose of that one. Returns how many.
std::size_t tie_transposed_weights(const std::vector<Weight>& weights);

}  // namespace onnxpress
