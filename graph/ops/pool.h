// MaxPool, AveragePool, LpPool and their global forms.
#pragma once

#include "graph/base/threads.h"
#include "graph/ops/window.h"

namespace onnxpress {

struct PoolAttrs {
  Window window;
  bool count_include_pad = false;  // AveragePool
  // With it, what ceil_mode adds beyond the padding counts too: ONNX Runtime's QLinearAveragePool.
  bool count_beyond_padding = false;
  bool column_major_indices = false;  // MaxPool's storage_order
  double p = 2;                       // LpPool

  static PoolAttrs from(const Node& node);
  Attributes to_attributes() const;  // of MaxPool and AveragePool
  // Whether count_include_pad exists in the node's opset.
  static bool may_include_padding(const Node& node) { return node.opset() >= 7; }
  // Dims of the result for an input [N,C,spatial...]. Throws Error when the window does not fit.
  Dims output_dims(const Dims& input) const;
  Shape output_shape(const Shape& input) const;
};

// Attribute p of LpPool and GlobalLpPool, a float before opset 2.
double pool_exponent(const Node& node);

// y, of attrs.output_dims(), from x: float32, float64, int64 or uint64 for the maximum (with the
// flat index of each, unless nullptr), float32 or float64 for the average.
void max_pool(ThreadPool& pool, const PoolAttrs& attrs, const Tensor& x, Tensor& y,
              std::int64_t* indices);
void average_pool(ThreadPool& pool, const PoolAttrs& attrs, const Tensor& x, Tensor& y);

}  // namespace onnxpress
