// BatchNormalization put back behind convolutions it was folded into, for training.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/core/pass.h"

namespace onnxpress {

// Behind every convolution of the main graph with a bias of its own and a trained weight, unless its
// result is an output, a BatchNormalization follows or nothing else reads its weight or bias: with
// the means and variances of the training data, and scales and biases that undo them, so that the
// model computes what it did. The weights concerned, in order; `context` has the training data.
std::vector<std::string> insert_batch_norm(Model& model, const std::vector<std::string>& trained,
                                           PassContext& context);

// The initializers of `trained`, which is `model` with BatchNormalization behind the convolutions
// of those weights: folded, so that `model` computes what `trained` does.
void fold_batch_norm(const Model& trained, const std::vector<std::string>& weights, Model& model);

}  // namespace onnxpress
