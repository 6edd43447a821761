// Constants in all their forms.
#pragma once

#include <optional>

#include "graph/ir/graph.h"

namespace onnxpress {

// What a Constant node produces, whichever attribute it uses. Throws Error when it has none.
Tensor constant_tensor(const Node& constant);

// The element that a ConstantOfShape is filled with: float32 0 by default.
Tensor fill_element(const Node& constant_of_shape);

// The contents of a constant initializer or of a Constant node's output; nothing otherwise.
std::optional<Tensor> constant_contents(const Value* value);
// The same for an integer tensor's elements.
std::optional<std::vector<std::int64_t>> constant_ints(const Value* value);

}  // namespace onnxpress
