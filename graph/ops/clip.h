// Clip: bounds are attributes (before opset 11) or inputs.
#pragma once

#include <optional>

#include "graph/ops/call.h"

namespace onnxpress {

// Bounds that are the same whatever the inputs; -inf and inf where there is none.
struct ClipBounds {
  double low;
  double high;

  // Nothing when a bound is an input without known contents.
  static std::optional<ClipBounds> from(const Node& node);
};

// Clip of values of type `type` to [low, high]; infinite bounds are left out.
OpCall make_clip(std::int64_t opset, DType type, double low, double high);

}  // namespace onnxpress
