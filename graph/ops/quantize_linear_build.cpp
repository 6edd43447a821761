#include "graph/ops/quantize_linear.h"

namespace onnxpress {

Attributes dequantize_linear_attributes(std::optional<std::int64_t> axis) {
  Attributes attributes;
  if (axis) attributes.emplace("axis", *axis);
  return attributes;
}

}  // namespace onnxpress
