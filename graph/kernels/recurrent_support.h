// What the vector kernels of RNN, GRU and LSTM take.
#pragma once

#include "graph/ops/kernel.h"
#include "graph/ops/recurrent.h"

namespace onnxpress {

// float32, the usual activations (sigmoid and tanh; Relu of RNN too), no clip, input_forget or peepholes.
bool has_vector_kernel(const RecurrentAttrs& attrs, const PrepareContext& context);

}  // namespace onnxpress
