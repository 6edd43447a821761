// SkipLayerNormalization and SkipSimplifiedLayerNormalization of com.microsoft: the normalization
// of a sum.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct SkipNormAttrs {
  float epsilon = 1e-12f;
  bool simplified = false;  // no mean, no beta

  static SkipNormAttrs from(const Node& node);
  // Operator and attributes; inputs are (input, skip, gamma, beta, bias), without beta when
  // simplified, outputs (y, mean, inverse deviation, sum of input, skip and bias).
  OpCall to_call() const;
};

}  // namespace onnxpress
