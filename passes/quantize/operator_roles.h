// What an operator is to quantization, and which targets run it on integers.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "passes/quantize/target.h"

namespace onnxpress {

enum class Role {
  none,        // runs on floats
  linear,      // sums of products with a constant weight: Conv, Gemm ...
  product,     // MatMul and Gemm of two activations
  arithmetic,  // element by element on one or more activations, or averages: results have a range of
               // their own
  movement,    // results are elements of the input (or zeros): they keep its scale and zero point
  bounds,      // Relu and Clip
  lookup,      // Gather from a constant table of floats
  recurrent,   // LSTM, GRU, RNN: weights only
};

// Which inputs of a node are what.
struct OperatorUse {
  Role role = Role::none;
  std::vector<std::size_t> data;                // activations (or constants in their place)
  std::vector<std::size_t> weights;             // constants
  std::optional<std::size_t> bias;
  // Whether the target runs it on codes; false: the weights alone may be quantized.
  bool on_integers = false;
  std::string reason;                           // why not
};

OperatorUse operator_use(const Node& node, const Target& target);

}  // namespace onnxpress
