// float16 and bfloat16 models computed in float32.
#pragma once

#include <memory>

#include "graph/ir/model.h"

namespace onnxpress {

// A copy of a model without functions in which runs of operators on float16 and bfloat16 work on
// float32, with casts around them: CPUs multiply nothing narrower as fast, and what is between two
// such operators is not rounded. Operators that may mean something else by a wider type keep
// theirs. nullptr when the model has no such weight and no such input.
std::unique_ptr<Model> widened_half(const Model& model);

// The same, of values that training names: the widened form of a constant takes its name (readers of its
// own type, if any, get it through a Cast), and so does that of a result, unless it is a graph output.
std::unique_ptr<Model> widened_for_training(const Model& model);

}  // namespace onnxpress
