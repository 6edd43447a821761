// Slice: bounds as attributes (before opset 10) or as inputs.
#pragma once

#include <functional>
#include <optional>

#include "graph/ops/call.h"
#include "graph/ops/infer.h"

namespace onnxpress {

struct SliceAttrs {
  std::vector<std::int64_t> starts, ends;
  std::vector<std::int64_t> axes;   // one per start
  std::vector<std::int64_t> steps;  // one per start, not 0

  // Nothing when an input is not constant.
  static std::optional<SliceAttrs> from(const Node& node);
  // Of one call; `input` gives the contents of an input, nullptr where it is omitted.
  static SliceAttrs of_call(const Node& node, const std::function<const Tensor*(std::size_t)>& input);

  // What one axis of `size` elements keeps: `count` elements from `first` on, `step` apart.
  struct Range {
    std::int64_t first, step, count;
  };
  Range range(std::size_t index, std::int64_t size) const;
  // Whether it keeps an axis as it is, of whatever size.
  bool takes_all(std::size_t index) const;
};

// Slice with constant bounds; steps other than 1 need opset 10.
OpCall make_slice(std::int64_t opset, const SliceAttrs& attrs);

}  // namespace onnxpress
