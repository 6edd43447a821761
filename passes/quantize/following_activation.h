// What a layer's output goes through next, as far as it works element by element.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

struct FollowingActivation {
  enum class Kind { none, clip, leaky_relu, sigmoid, tanh };
  Kind kind = Kind::none;
  float low = 0, high = 0;  // of clip; leaky_relu: `low` is the slope below 0
  float gain = 1;           // of the product, before the bias is added
  std::vector<float> bias;  // by output channel; empty: zero

  float value(float x) const;
  float slope(float x) const;

  // Of a layer whose weight is input `operand` and whose output has so many channels: its bias, that
  // of an Add behind it, and the activation that alone reads the sum.
  static FollowingActivation of(const Node& node, std::size_t operand, std::int64_t channels);
};

}  // namespace onnxpress
