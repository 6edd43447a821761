// Concat and Split.
#pragma once

#include <optional>
#include <span>

#include "graph/ops/call.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress {

struct SplitAttrs {
  std::int64_t axis = 0;
  // Sizes along the axis: the attribute (before opset 13) or a constant input. Empty: equal parts.
  // Nothing: an input that is not constant.
  std::optional<std::vector<std::int64_t>> sizes;

  static SplitAttrs from(const Node& node);
};

// Split of `axis` (not negative) into parts of these sizes.
OpCall make_split(std::int64_t opset, std::int64_t axis, std::vector<std::int64_t> sizes);

// Sizes of equal parts: all but the last ceil(size / parts). Throws Error when, before opset 18,
// they do not come out even.
std::vector<std::int64_t> equal_parts(std::int64_t size, std::size_t parts, bool must_be_even);

// What is known of the shape of parts (nullptr: nothing known) joined along `axis`. Throws Error
// when they do not fit; nothing when no part is known.
std::optional<Shape> concat_shape(std::span<const Shape* const> parts, std::int64_t axis);

// Axis roles of each part of rank `rank`.
std::vector<AxisRole> concat_roles(const Node& node, std::size_t rank);

OpCall make_concat(std::int64_t axis);

// `axis` of Concat; before opset 4 it was optional (1).
std::int64_t concat_axis(const Node& node);

}  // namespace onnxpress
