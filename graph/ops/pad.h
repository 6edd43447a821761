// Pad: widths as attribute (`paddings` in opset 1, `pads` before 11) or as input.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/ops/call.h"
#include "graph/ops/kernel.h"

namespace onnxpress {

enum class PadMode { constant, reflect, edge, wrap };

struct PadAttrs {
  PadMode mode = PadMode::constant;
  // Begins of all axes, then ends; negative ones crop. Nothing when an input is not constant or the
  // rank is not known.
  std::optional<std::vector<std::int64_t>> pads;
  // What `constant` fills with; nothing when it is an input that is not constant.
  std::optional<double> value;

  static PadAttrs from(const Node& node);
};

// Output 0 is input 0 with zeros (empty strings) around it: begins of all axes, then ends; negative
// ones crop. Throws Error when that leaves no axis.
void pad_with_zeros(KernelContext& context, const std::vector<std::int64_t>& pads);

}  // namespace onnxpress
