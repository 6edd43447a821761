// Open dims of a model's inputs, made numbers.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

using InputShapes = std::map<std::string, Dims>;

// A copy of the model (weights shared) whose required inputs have these shapes; the symbols of
// their declared shapes are those numbers everywhere, and what follows is inferred. Throws Error:
// no such input, not a tensor, another rank, a dim that is declared otherwise, one symbol with two
// numbers, rules that contradict the shapes.
std::unique_ptr<Model> with_input_shapes(const Model& model, const InputShapes& shapes);

// Dims of required inputs that are no numbers: "batch", or "x[0]" where they have no name.
std::vector<std::string> open_dims(const Model& model);

}  // namespace onnxpress
