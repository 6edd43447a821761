// BatchNormalization: Y = (X - mean) / sqrt(variance + epsilon) * scale + bias, by channel (axis
// 1).
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct BatchNormAttrs {
  float epsilon = 1e-5f;
  float momentum = 0.9f;
  bool training = false;    // computes its own statistics
  bool per_channel = true;  // false: `spatial` = 0 before opset 9, statistics per activation

  // One reading of all forms: is_test (opset 6 and before), spatial, training_mode (opset 14).
  // Before opset 14 a node without is_test that has only its first output is inference.
  static BatchNormAttrs from(const Node& node);
};

}  // namespace onnxpress
