// What passes ask of a model's BatchNormalization.
#pragma once

#include "graph/ir/model.h"

namespace onnxpress {

// Whether a BatchNormalization of the model, its subgraphs or functions stands right behind a product (Conv,
// ConvTranspose, Gemm, MatMul) or the Add of a product's bias.
bool has_unfolded_batch_norm(const Model& model);

}  // namespace onnxpress
