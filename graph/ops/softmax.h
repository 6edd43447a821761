// Softmax, LogSoftmax, Hardmax.
#pragma once

#include "graph/ir/graph.h"

namespace onnxpress {

struct SoftmaxAttrs {
  std::int64_t axis = -1;
  bool flattens = false;  // before opset 13: over all axes from `axis` on, as one

  static SoftmaxAttrs from(const Node& node);
};

}  // namespace onnxpress
