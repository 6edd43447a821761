// Codes of a matrix in the order of com.microsoft's operators.
#pragma once

#include <cstdint>

#include "graph/base/threads.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

struct CodeRows {
  bool turned = false;       // rows of the result are columns of the matrix
  std::int64_t multiple = 1;  // codes of a row are filled up to a multiple of these, and to a whole byte
  std::uint8_t filler = 0;
};

// The matrix of 2, 4 or 8 bit codes as bytes [rows, packed codes], low bits first; codes are numbers
// from 0 on: signed ones plus half the levels. By all threads of the pool; nullptr: by the caller's.
Tensor contrib_codes(const Tensor& matrix, const CodeRows& rows, ThreadPool* pool);

// The same, one code after the other.
Tensor plain_contrib_codes(const Tensor& matrix, const CodeRows& rows);

}  // namespace onnxpress
