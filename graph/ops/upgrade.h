// Raising a model's ai.onnx opset: the differences between versions of operators, as rewrites.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// The newest ai.onnx opset known here.
inline constexpr std::int64_t newest_opset = 27;
// The newest that ONNX Runtime 1.31 loads; 27 was under development then.
inline constexpr std::int64_t newest_released_opset = 26;

// The IR version that the first ONNX release with this opset writes (onnx docs/Versioning.md).
std::int64_t ir_version_of_opset(std::int64_t opset);

// Why the model cannot go to `target`: one line per node that has no rewrite, empty when it can.
std::vector<std::string> upgrade_obstacles(const Model& model, std::int64_t target);

// Rewrites the main graph, nested graphs and functions for opset `target` and raises the IR version
// to that of the opset. Outputs stay bit-equal. Returns the number of nodes rewritten. Throws Error
// with the obstacles (the model is then unchanged), or when `target` is below the model's opset.
std::int64_t upgrade_opset(Model& model, std::int64_t target);

}  // namespace onnxpress
