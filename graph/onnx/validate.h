// Structural validation of a model as read or about to be written.
#pragma once

#include <cstdint>

#include "graph/ir/model.h"

namespace onnxpress {

// Throws Error unless the IR version is one of 3 to 13.
void check_ir_version(std::int64_t version);

// Throws Error naming the graph, node and value: IR version outside 3..13, no ai.onnx import for
// ai.onnx operators, opset outside 1..27 (ai.onnx), tensors whose type is newer than the IR
// version, wrong byte counts, types that contradict an initializer, references to attributes that
// no function declares, functions that call themselves. Names, edges, order and cycles are already
// proven by construction of the Graph. Unknown domains and operators pass.
void validate(const Model& model);

}  // namespace onnxpress
