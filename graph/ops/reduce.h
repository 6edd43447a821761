// ReduceSum and its family: axes as attribute or, from opset 18 (ReduceSum: 13), as input.
#pragma once

#include <optional>

#include "graph/ops/call.h"

namespace onnxpress {

struct ReduceAttrs {
  // Nothing when they are an input whose contents are not constant. Empty: all axes (or none, with
  // noop_with_empty_axes).
  std::optional<std::vector<std::int64_t>> axes;
  bool keepdims = true;
  bool noop_with_empty_axes = false;

  static ReduceAttrs from(const Node& node);
  // The axes for a given rank, non-negative and sorted.
  static std::vector<std::int64_t> effective(const std::vector<std::int64_t>& axes, bool noop,
                                             std::size_t rank);
};

// "ReduceMean" and so on over `axes` in the form of `opset`.
OpCall make_reduce(std::string op_type, std::int64_t opset, std::vector<std::int64_t> axes,
                   bool keepdims);

}  // namespace onnxpress
