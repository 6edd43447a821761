// Activations with parameters.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

// max(0, min(1, alpha x + beta)).
struct HardSigmoidAttrs {
  float alpha = 0.2f;
  float beta = 0.5f;

  static HardSigmoidAttrs from(const Node& node);
  Attributes to_attributes() const;
};

// x where it is not negative, alpha x elsewhere.
struct LeakyReluAttrs {
  float alpha = 0.01f;

  static LeakyReluAttrs from(const Node& node);
  Attributes to_attributes() const;
};

// gamma * x where it is positive, gamma * alpha * (exp(x) - 1) elsewhere.
struct SeluAttrs {
  float alpha, gamma;

  static SeluAttrs from(const Node& node);
};

// Swish, opset 24, and QuickGelu of com.microsoft: x * sigmoid(alpha x).
Attributes swish_attributes(float alpha);

// Gelu (opset 20): by the error function, or by its approximation with tanh.
Attributes gelu_attributes(bool by_tanh);
bool is_tanh_gelu(const Node& node);

}  // namespace onnxpress
