// Conv over 1 to 3 spatial axes.
#pragma once

#include <optional>

#include "graph/base/threads.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"
#include "graph/ops/window.h"

namespace onnxpress {

struct ConvAttrs {
  Window window;
  std::int64_t group = 1;

  // Kernel sizes come from kernel_shape or the type of the weights, which are input `weights`.
  // Throws Error when neither is known.
  static ConvAttrs from(const Node& node, std::size_t weights = 1);
  // For weights of known dims.
  static ConvAttrs of(const Node& node, const Dims& weights);
  Attributes to_attributes() const;

  // Dims of the result for an input [N,C,spatial...] and weights [M,C/group,kernel...]. Throws
  // Error when they do not fit.
  Dims output_dims(const Dims& input, const Dims& weights) const;
  // Multiply-accumulates for the same.
  std::int64_t macs(const Dims& input, const Dims& weights) const;
};

// Of a Conv or ConvTranspose: so many groups from now on.
void set_conv_groups(Node& node, std::int64_t groups);

// y = x * w (+ bias), all float32 or all float64; y has attrs.output_dims(). Throws Error when the
// number of biases is not that of the filters.
void convolve(ThreadPool& pool, const ConvAttrs& attrs, const Tensor& x, const Tensor& w,
              const Tensor* bias, Tensor& y);

// The same for a geometry of its own: x [N, C, input], w [M, C / groups, kernel], y [N, M, output].
void convolve(ThreadPool& pool, const WindowGeometry& geometry, std::int64_t groups,
              const Tensor& x, const Tensor& w, const Tensor* bias, Tensor& y);
// The gradient of its weights: dw [M, C / groups, kernel] from x and the gradient dy of y.
void correlate(ThreadPool& pool, const WindowGeometry& geometry, std::int64_t groups,
               const Tensor& x, const Tensor& dy, Tensor& dw);

// The result's shape, as far as it is known, for the attributes of `node` and what is known of x
// [N,C,spatial...] and w (nullptr: nothing). Throws Error when they do not fit.
std::optional<Shape> conv_shape(const Node& node, const Shape* x, const Shape* w);

// Throws Error when the type of input `index`, the biases, is known not to be one value a filter.
void check_biases(const InferContext& context, std::size_t index, const Dim& filters);

// Axis roles of a convolution whose operands are the inputs of those numbers.
OperandAxes conv_axes(const Node& node, std::size_t x, std::size_t w, std::size_t bias);

}  // namespace onnxpress
