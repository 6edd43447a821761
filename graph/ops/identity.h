// Dropout, Cast.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

// Whether a Dropout hands its input on: always before opset 12, afterwards unless an input says
// that this is training, or may say so.
bool is_inference_dropout(const Node& node);

// `to` of Cast: an attribute that was a name before opset 6.
DType cast_target(const Node& node);
// Whether values out of the range of a float8 become its largest one.
bool cast_saturates(const Node& node);
// From opset 6.
OpCall make_cast(DType to);

}  // namespace onnxpress
