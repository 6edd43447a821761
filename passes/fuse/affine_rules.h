// Rules that fold a scale and a shift by channel into the linear operator in front of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/rewrite/pattern.h"

namespace onnxpress {

// Folds one of `op_types` (BatchNormalization, Mul, Div, Add, Sub; '|' separates) into the Conv,
// ConvTranspose or Gemm before it.
Rule affine_behind_linear(std::string name, std::string_view op_types);
// The same behind a MatMul, which gets an Add where there is a shift.
Rule affine_behind_product(std::string name, std::string_view op_types);
// The same behind a MatMul and the Add of its bias.
Rule affine_behind_bias(std::string name, std::string_view op_types);

// Folds a Mul or Div by one number behind a linear operator (and the Add of its bias) and one or
// two operators that move elements only: the scale of an attention's queries.
std::vector<Rule> scale_behind_moves(const std::string& name);

// Whether constant scales and shifts that end with `node` come behind a product or quotient of two
// values: then they may belong to an activation (Gelu's 0.5) or a normalization (its weight and
// bias), which is worth more whole, here or in a runtime.
bool ends_product(const Node& node);

// Gives `node` another constant in its place `index`: under the old name where no other node reads
// it, else under the name of `named` made unique.
void put_constant(Patch& patch, Node* node, std::size_t index, const Value& named, Tensor tensor);

}  // namespace onnxpress
