// LayerNormalization over the axes from `axis` on.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct LayerNormAttrs {
  std::int64_t axis = -1;
  float epsilon = 1e-5f;

  static LayerNormAttrs from(const Node& node);
  Attributes to_attributes() const;
};

}  // namespace onnxpress
