// What builders return: an operator call in the form that an opset wants.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

// A node's operator and attributes, and the constants that follow its data inputs (an undefined
// tensor stands for an omitted input). Whoever edits the graph makes node and initializers of it.
struct OpCall {
  std::string op_type;
  Attributes attributes;
  std::vector<Tensor> constants;
};

}  // namespace onnxpress
