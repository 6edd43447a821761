// Weights of a 3x3 convolution as oneDNN's Winograd convolutions read them.
#pragma once

#include "graph/kernels/onednn.h"

namespace onnxpress::onednn {

// Whether pack_winograd_weights() knows the layout `packed` (of a oneDNN whose layouts are public:
// 2.x) for float32 weights that lie row-major.
bool packs_winograd_weights(const memory::desc& given, const memory::desc& packed);

// Writes the transformed weights, U = G g G^T for every pair of channels (Lavin and Gray 2016,
// "Fast Algorithms for Convolutional Neural Networks", section 4), of `weights` [M,C,3,3] to
// `target`, of layout `packed`. oneDNN's own reorder gives the same several times slower: it builds
// the result twice.
void pack_winograd_weights(const float* weights, const memory::desc& packed, float* target);

}  // namespace onnxpress::onednn
