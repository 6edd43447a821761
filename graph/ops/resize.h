// Resize and Upsample.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ops/resample.h"

namespace onnxpress {

// Whether a Resize or Upsample hands its input on: its scales are constants, all 1, or it is given
// sizes and `keeps_shape`. Not where a region of interest is cut out.
bool resizes_nothing(const Node& node, bool keeps_shape);

// A node's input by number, nullptr when it is omitted.
using InputTensors = std::function<const Tensor*(std::size_t)>;

// How each resized axis of an input of dims `x` (none of them 0) is made, ascending; without
// weights where the nearest elements are only moved.
std::vector<AxisTaps> resize_taps(const Node& node, const Dims& x, const InputTensors& input);

// Whether every element of the result is one of the input's: nearest neighbours, nothing filled in.
bool resizes_by_picking(const Node& node);

}  // namespace onnxpress
