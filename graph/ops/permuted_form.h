// The same node on operands whose axes are in another order: what moving a Transpose across it
// asks.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "graph/ops/infer.h"
#include "graph/ops/permutation.h"

namespace onnxpress {

// How a node computes the permuted outputs from permuted inputs, to the bit in the reference
// kernels.
struct PermutedForm {
  // Of every input and output; an empty one: read, or made, as it is. Of a constant with fewer axes
  // than the permutation, which broadcasts: that of the constant with 1s in front.
  std::vector<Permutation> inputs, outputs;
  Attributes attributes;                                  // all
  std::vector<std::pair<std::size_t, Tensor>> arguments;  // constants for these inputs
};

// Which operand of a node is permuted.
struct PermutedOperand {
  bool is_output = false;
  std::size_t index = 0;
  Permutation permutation;
};

// The form of `node` that its operand asks for; nothing when the operator has none, gives meaning
// to the order of the axes, or too little is known of its other operands.
std::optional<PermutedForm> permuted_form(const Node& node, const PermutedOperand& operand,
                                          const TypeInference& types);

}  // namespace onnxpress
