// Types and tensors of the text language; not for other layers.
#pragma once

#include "graph/ir/attribute.h"
#include "graph/ir/lexer.h"

namespace onnxpress::text {

Type read_type(Lexer& lexer);
// "float32" of "float32[2]".
DType read_dtype(Lexer& lexer);
// "[2,3]".
Dims read_dims(Lexer& lexer);
// What follows type and dims: "{1,2}", "zeros", "ones" or "random(7,0,1)".
Tensor read_contents(Lexer& lexer, DType type, const Dims& dims);
Tensor read_tensor(Lexer& lexer);
// What follows "sparse": "[10](float32[2]{1,2}, int64[2]{3,4})".
SparseTensor read_sparse(Lexer& lexer);

}  // namespace onnxpress::text
