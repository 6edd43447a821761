// LayerNormalization over the axes from `axis` on.
#pragma once

#include "graph/base/threads.h"
#include "graph/ops/call.h"

namespace onnxpress {

struct LayerNormAttrs {
  std::int64_t axis = -1;
  float epsilon = 1e-5f;

  static LayerNormAttrs from(const Node& node);
  Attributes to_attributes() const;
};

// `dims` less leading ones that it has beyond `rank` axes.
Dims without_leading_ones(Dims dims, std::size_t rank);

// Rows (all axes from `axis` on) of a float32 or float64 tensor, normalized: (x - mean) /
// sqrt(variance + epsilon) with `centered`, x / sqrt(mean square + epsilon) without; then * scale + bias. Scale
// and bias broadcast to a row; an undefined bias is none. Throws Error when they do not fit.
struct NormalizedRows {
  Tensor y;
  Tensor means, inverses;  // float64, by row, axes from `axis` on being 1

  static NormalizedRows of(ThreadPool& pool, const Tensor& x, std::int64_t axis, double epsilon,
                           bool centered, const Tensor& scale, const Tensor& bias);
};

}  // namespace onnxpress
