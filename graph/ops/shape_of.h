// Shape.
#pragma once

#include <cstddef>

#include "graph/ops/call.h"

namespace onnxpress {

// The dims that a Shape node lists, [first, last): its start and end (opset 15), clamped to the
// rank.
struct ShapeBounds {
  std::size_t first = 0, last = 0;

  static ShapeBounds of(const Node& node, std::size_t rank);
};

// Whether a Shape can list a part of the dims.
bool can_list_part(std::int64_t opset);
// Shape of dims [first, last) of a tensor of `rank` axes; a part needs can_list_part.
OpCall make_shape(std::int64_t opset, std::size_t rank, ShapeBounds bounds);

}  // namespace onnxpress
