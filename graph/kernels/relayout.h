// Between the layouts of images.
#pragma once

#include "graph/ops/kernel.h"

namespace onnxpress {

// A kernel that brings input 0, an image of `dims` [N,C,spatial...] that lies in memory as `from`
// says, into the other layout. `is_view`: the bytes are the same in both, and are forwarded.
// Throws Error for sub-byte types and strings.
Kernel make_relayout(DType type, const Dims& dims, Layout from, bool is_view);

}  // namespace onnxpress
