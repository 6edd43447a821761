// Resize and Upsample.
#pragma once

#include "graph/ir/graph.h"

namespace onnxpress {

// Whether a Resize or Upsample hands its input on: its scales are constants, all 1, or it is given
// sizes and `keeps_shape`. Not where a region of interest is cut out.
bool resizes_nothing(const Node& node, bool keeps_shape);

// Whether every element of the result is one of the input's: nearest neighbours, nothing filled in.
bool resizes_by_picking(const Node& node);

}  // namespace onnxpress
