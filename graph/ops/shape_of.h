// Shape.
#pragma once

#include "graph/ir/graph.h"

namespace onnxpress {

// The axes whose dims a Shape gives, [first, last): its start and end (opset 15), clamped to the
// rank.
struct ShapeBounds {
  std::size_t first, last;

  static ShapeBounds of(const Node& shape, std::size_t rank);
};

}  // namespace onnxpress
