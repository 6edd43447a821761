// Concat and Split.
#pragma once

#include <optional>

#include "graph/ops/call.h"

namespace onnxpress {

struct SplitAttrs {
  std::int64_t axis = 0;
  // Sizes along the axis: the attribute (before opset 13) or a constant input. Empty: equal parts.
  // Nothing: an input that is not constant.
  std::optional<std::vector<std::int64_t>> sizes;

  static SplitAttrs from(const Node& node);
};

// Sizes of equal parts: all but the last ceil(size / parts). Throws Error when, before opset 18,
// they do not come out even.
std::vector<std::int64_t> equal_parts(std::int64_t size, std::size_t parts, bool must_be_even);

// `axis` of Concat; before opset 4 it was optional (1).
std::int64_t concat_axis(const Node& node);

}  // namespace onnxpress
