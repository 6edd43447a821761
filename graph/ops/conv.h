// Conv over 1 to 3 spatial axes.
#pragma once

#include <optional>

#include "graph/ops/infer.h"
#include "graph/ops/window.h"

namespace onnxpress {

struct ConvAttrs {
  Window window;
  std::int64_t group = 1;

  // Kernel sizes come from kernel_shape or the weights' type. Throws Error when neither is known.
  static ConvAttrs from(const Node& node);
  Attributes to_attributes() const;

  // Dims of the result for an input [N,C,spatial...] and weights [M,C/group,kernel...]. Throws
  // Error when they do not fit.
  Dims output_dims(const Dims& input, const Dims& weights) const;
};

}  // namespace onnxpress
