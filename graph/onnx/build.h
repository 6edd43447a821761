// Messages to IR: names become edges.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph/onnx/messages.h"
#include "graph/onnx/reader.h"

namespace onnxpress::wire {

// Builds the model and appends to `notes` what was put right on the way. Throws Error: duplicate
// names, inputs that nothing produces, cycles.
std::unique_ptr<Model> build_model(ModelMessage message, const ReadOptions& options,
                                   std::vector<std::string>& notes);

}  // namespace onnxpress::wire
