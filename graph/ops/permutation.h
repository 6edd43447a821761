// Orders of axes.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/ops/infer.h"

namespace onnxpress {

// Axis i of the permuted tensor is axis permutation[i] of the tensor, as Transpose has it.
using Permutation = std::vector<std::int64_t>;

bool is_identity(const Permutation& permutation);
Permutation inverse(const Permutation& permutation);
// What permuting by `first` and then by `second` is. Both have the same rank.
Permutation composed(const Permutation& first, const Permutation& second);

// Of a Transpose; nothing for other nodes, and where neither the attribute nor the rank is known.
std::optional<Permutation> permutation_of(const Node& node, const TypeInference& types);

}  // namespace onnxpress
