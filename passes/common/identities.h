// Rules for operators that hand one of their inputs on as it is.
#pragma once

#include <string>
#include <string_view>

#include "graph/ops/window.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {

// What a node hands on: a value, or why it does not ("": nobody would expect it to).
struct Source {
  Value* value = nullptr;
  std::string reason = "";
};

// Replaces the first output of nodes of `op_types` by what `find` says they hand on. Their other
// outputs must not be in use, their attributes known.
Rule identity_rule(std::string name, std::string_view op_types, Source (*find)(const Match&));

// The root's input at `index`, when the result is known to have its type.
Source if_same_type(const Match& match, std::size_t index = 0);
// The root's input at `index`, when the other operand, a constant, does not broadcast it.
Source unless_broadcast(const Match& match, std::size_t index, const Tensor& other);
// The input of a reduction over axes of size 1 that stay.
Source if_over_ones(const Match& match);

// All elements of the constant are `wanted`; for zeros the sign counts where `sign` is not 0.
bool is_all(const Tensor& tensor, double wanted, int sign = 0);
// A window of one cell that takes every cell of the input.
bool takes_each_cell(const Window& window);

}  // namespace onnxpress
