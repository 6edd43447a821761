// FusedMatMul of com.microsoft: alpha * A' * B'.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct FusedMatMulAttrs {
  // How one operand is read. Vectors are read as they are.
  struct Reading {
    bool transposed = false;        // the last two axes swapped
    bool batch_transposed = false;  // axis 0 moved to the last but one
  };
  float alpha = 1;
  Reading a, b;

  // Also of a MatMul, which has none.
  static FusedMatMulAttrs from(const Node& node);
  Attributes to_attributes() const;
};

}  // namespace onnxpress
