// Transpose.
#pragma once

#include "graph/ir/graph.h"

namespace onnxpress {

// Output axis i is input axis perm[i]. Throws Error when the attribute is no permutation of `rank`
// axes; without it the axes are reversed.
std::vector<std::int64_t> transpose_permutation(const Node& node, std::size_t rank);

// A copy of the tensor with its axes permuted (a weight, at pass time).
Tensor transposed(const Tensor& tensor, const std::vector<std::int64_t>& permutation);

}  // namespace onnxpress
