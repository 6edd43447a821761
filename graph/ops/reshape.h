// Reshape, Flatten, Squeeze, Unsqueeze: the same elements under other dims.
#pragma once

#include <optional>

#include "graph/ops/call.h"
#include "graph/ops/infer.h"

namespace onnxpress {

// Dims a Reshape to `target` gives for `input`: -1 is inferred, 0 copies the input's dim (unless
// `allow_zero`). Throws Error when the element counts differ.
Dims reshaped_dims(const Dims& input, const std::vector<std::int64_t>& target, bool allow_zero);

// What a Reshape is told: dims of which -1 is inferred and 0 copies the input's dim at its place,
// unless zeros are dims as others are.
struct ReshapeTarget {
  Dims dims;
  bool allow_zero = false;

  // Nothing when it is an input that is not constant.
  static std::optional<ReshapeTarget> from(const Node& reshape);
};

// How many of the input's leading axes Flatten makes the first of its two.
std::size_t flatten_axis(const Node& flatten, std::size_t rank);

// Whether a Reshape takes a 0 of its target for a dim of 0 rather than for a copy (allowzero).
bool reshape_allows_zero(const Node& node);

// Axes of Squeeze, Unsqueeze: the attribute before opset 13, afterwards an input. Nothing when that
// is absent or not constant.
std::optional<std::vector<std::int64_t>> axes_argument(const Node& node);

OpCall make_reshape(std::int64_t opset, Dims target);
OpCall make_squeeze(std::int64_t opset, std::vector<std::int64_t> axes);
OpCall make_unsqueeze(std::int64_t opset, std::vector<std::int64_t> axes);

}  // namespace onnxpress
