// Models, types and tensors from text: what to_text (graph/ir/model.h) prints.
//
//   model ir=8 opset=17 com.microsoft=1        # comments run to the end of the line
//   metadata "author" = "somebody"
//   input x: float32[batch,3]
//   input scale: float32[] = {2}               # an input with a default
//   initializer w: float32[3,2] = {1,2,3,4,5,6}
//   initializer b: float32[2] = zeros          # or ones, or random(seed[,low,high])
//   initializer s = sparse[10](float32[2]{1,2}, int64[2]{3,4})
//   y: float32[batch,2] = Gemm(x, w, b) {alpha=0.5, transB=0} "fc1"
//   a, _ = com.microsoft.Pair(y, _, "an odd name")
//   z = If(c) {else_branch=graph {
//     output a
//   }, then_branch=graph "name" {
//     t = Relu(y)
//     output t
//   }}
//   output z: float32[batch,2]
//   function local.Twice(alpha, beta=1.0) opset=17 {
//     input v
//     r = Scale(v) {factor=@alpha(float)}
//     output r
//   }
//
// One statement a line; brackets may span lines. A node: its outputs, with types or without, the
// operator (what precedes the last dot is the domain; an overload follows a colon), inputs,
// attributes, name. `_` is an omitted input or output. Names of other than letters, digits and
// _./:- are quoted; a space follows the colon before a type. Values are defined before they are
// read.
//
// Types: float32[2,n,?], float32 (any rank), sparse(float32[2]), sequence(T), optional(T),
// map(int64,T), opaque("domain","name"), ? (unknown).
// Attributes: 1, 1.0, "s", float32[2]{1,2}, graph {...}, sparse[10](values, indices),
// type float32[2], none, lists of one of these ([1,2]; empty ones: floats[], ints[], strings[],
// tensors[], graphs[], sparses[], types[]), and @parameter(kind) in a function. Floats have a dot
// or an exponent, or are inf or nan. A graph goes by its attribute's name unless one follows.
// A tensor's elements are in braces, in row-major order; the hash that to_text prints for a large
// one cannot be read back.
#pragma once

#include <memory>
#include <string_view>

#include "graph/ir/model.h"

namespace onnxpress {

// All throw Error; the model's names the line. Types given for values are marked `type_in_file`.
std::unique_ptr<Model> parse_model(std::string_view text);
Type parse_type(std::string_view text);      // "float32[batch,3]"
Tensor parse_tensor(std::string_view text);  // "float32[2]{1,2}", "int8[3,3] random(7)"

}  // namespace onnxpress
