// Gemm: Y = alpha * A' * B' + beta * C.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct GemmAttrs {
  float alpha = 1;
  float beta = 1;
  bool transpose_a = false;
  bool transpose_b = false;

  static GemmAttrs from(const Node& node);
  Attributes to_attributes(std::int64_t opset) const;
};

}  // namespace onnxpress
