// ConvTranspose over 1 to 3 spatial axes.
#pragma once

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
};

}  // namespace onnxpress
