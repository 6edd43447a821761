// ConvTranspose over 1 to 3 spatial axes.
#pragma once

#include "graph/base/threads.h"
#include "graph/ops/window.h"

namespace onnxpress {

struct ConvTransposeAttrs {
  Window window;
  std::int64_t group = 1;
  std::vector<std::int64_t> output_padding;
  std::vector<std::int64_t> output_shape;  // spatial; empty unless given

  // Kernel sizes come from `kernel_sizes` (those of the weights), kernel_shape or the weights'
  // type.
  static ConvTransposeAttrs from(const Node& node, std::vector<std::int64_t> kernel_sizes = {});

  // One spatial axis for the input's size along it: the padding taken off the full result, and
  // the output's size, which is larger than what inputs reach when output_shape asks for it.
  struct Axis {
    std::int64_t begin, end, size;
  };
  Axis resolve_axis(std::size_t axis, std::int64_t size) const;
  // All of them: begins, then ends, and the output's sizes.
  struct Resolved {
    std::vector<std::int64_t> pads;
    Dims spatial;
  };
  Resolved resolve(const Dims& input_spatial) const;
  // Of the convolution that it transposes: from the result back to the input.
  WindowGeometry geometry(const Dims& input_spatial) const;
};

// The transpose of the convolution of that geometry, from its result x [N, C, output] and weights
// w [C, M / groups, kernel] to y [N, M, input]. All float32 or all float64.
void convolve_transposed(ThreadPool& pool, const WindowGeometry& geometry, std::int64_t groups,
                         const Tensor& x, const Tensor& w, const Tensor* bias, Tensor& y);

}  // namespace onnxpress
