// Models that were exported in training mode, as PyTorch's TrainingMode.TRAINING does.
#pragma once

#include <string>

#include "graph/ir/model.h"

namespace onnxpress {

// Lets nodes that say they are in training mode do what they do in inference: BatchNormalization reads its running
// statistics, Dropout hands its input on. Names of values stay; subgraphs and functions are included. Nodes whose running
// statistics are read, or whose mode is an input of the model or left to the calls of a function, stay. Returns what was changed, for a note, or "".
std::string set_inference_form(Model& model);

// Throws Error, naming the node, if a BatchNormalization is in training mode, by its own attributes or by those of the call of
// the function it is in; subgraphs are included.
void require_inference_form(const Model& model);

}  // namespace onnxpress
