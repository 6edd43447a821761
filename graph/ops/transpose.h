// Transpose.
#pragma once

#include "graph/base/threads.h"
#include "graph/ops/call.h"

namespace onnxpress {

// Output axis i is input axis perm[i]. Throws Error when the attribute is no permutation of `rank`
// axes; without it the axes are reversed.
std::vector<std::int64_t> transpose_permutation(const Node& node, std::size_t rank);

OpCall make_transpose(std::vector<std::int64_t> permutation);

// A copy of the tensor with its axes permuted (a weight, at pass time).
Tensor transposed(const Tensor& tensor, const std::vector<std::int64_t>& permutation);

// The same, in parallel, into a tensor of the permuted dims. Not for strings and sub-byte types.
void transpose_into(ThreadPool& pool, const Tensor& tensor,
                    const std::vector<std::int64_t>& permutation, Tensor& result);

}  // namespace onnxpress
