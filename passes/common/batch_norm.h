// What passes ask of a model's BatchNormalization.
#pragma once

#include "graph/ir/model.h"

namespace onnxpress {

// Whether a BatchNormalization of the model, its subgraphs or functions stands right behind a product (Conv,
// ConvTranspose, Gemm, MatMul) or the Add of a product's bias.
bool has_unfolded_batch_norm(const Model& model);

// A BatchNormalization of the main graph with training_mode=1: its results depend on the other samples of the batch.
const Node* find_batch_norm_in_training(const Model& model);

}  // namespace onnxpress
