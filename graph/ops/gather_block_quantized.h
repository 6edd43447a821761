// GatherBlockQuantized of com.microsoft: rows of a table that is quantized in blocks.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct GatherBlockQuantizedAttrs {
  std::int64_t gather_axis = 0, quantize_axis = 1, block_size = 128, bits = 4;

  static GatherBlockQuantizedAttrs from(const Node& node);
  Attributes to_attributes() const;
};

}  // namespace onnxpress
