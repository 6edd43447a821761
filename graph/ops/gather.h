// Gather.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

// The axis that the indices are along, possibly negative.
std::int64_t gather_axis(const Node& gather);
OpCall make_gather(std::int64_t axis);

}  // namespace onnxpress
