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

  // Padding worked out for the input's spatial sizes, begins and then ends (negative: the output
  // has cells no input reaches), and the output's spatial sizes.
  struct Resolved {
    std::vector<std::int64_t> pads;
    Dims spatial;
  };
  Resolved resolve(const Dims& input_spatial) const;
};

}  // namespace onnxpress
