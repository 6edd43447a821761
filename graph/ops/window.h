// Sliding windows of convolutions and pooling: kernel, strides, dilations, padding.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

enum class AutoPad { notset, same_upper, same_lower, valid };

// One entry per spatial axis; `pads` has all begins, then all ends, as ONNX writes them.
struct Window {
  AutoPad auto_pad = AutoPad::notset;
  std::vector<std::int64_t> kernel, strides, dilations, pads;
  bool ceil_mode = false;

  // Reads kernel_shape, strides, dilations, pads, auto_pad, ceil_mode. What is absent gets its
  // default for the given kernel (that of the weights; empty: from kernel_shape). Throws Error for
  // lengths that contradict each other and for values that make no window.
  static Window from(const Node& node, std::vector<std::int64_t> kernel_sizes);

  std::size_t rank() const { return kernel.size(); }
  // Cells from the first to the last tap along an axis.
  std::int64_t extent(std::size_t axis) const { return (kernel[axis] - 1) * dilations[axis] + 1; }
  // Begins, then ends, with auto_pad worked out for the input's spatial sizes.
  std::vector<std::int64_t> resolved_pads(const Dims& spatial) const;
  // Number of windows along `axis`. Throws Error when not even one fits.
  std::int64_t output_size(std::size_t axis, std::int64_t size) const;
  // The same where the input's size may be a symbol, which stays where the size does not change.
  Dim output_dim(std::size_t axis, const Dim& dim) const;
  // As attributes (auto_pad not repeated; pads are written when one is not 0).
  void write(Attributes& attributes) const;
};

// A window over the spatial axes of one input, as kernels walk it; always three axes, the leading
// ones of size 1.
struct WindowGeometry {
  std::int64_t input[3], output[3], kernel[3], stride[3], dilation[3], pad[3];

  static WindowGeometry of(const Window& window, const Dims& input_spatial,
                           const Dims& output_spatial);
  std::int64_t input_size() const { return input[0] * input[1] * input[2]; }
  std::int64_t output_size() const { return output[0] * output[1] * output[2]; }
  std::int64_t kernel_size() const { return kernel[0] * kernel[1] * kernel[2]; }
};

}  // namespace onnxpress
