// Softmax, LogSoftmax, Hardmax.
#pragma once

#include <optional>

#include "graph/ir/graph.h"

namespace onnxpress {

struct SoftmaxAttrs {
  std::int64_t axis = -1;
  bool flattens = false;  // before opset 13: over all axes from `axis` on, as one

  static SoftmaxAttrs from(const Node& node);
  // The rows of an input that is not empty: `size` elements, `step` apart. Throws Error when the
  // axis is out of range.
  struct Rows {
    std::int64_t size = 1, step = 1;
  };
  Rows rows(const Dims& dims) const;
  // Of an operator along one axis, counted from the end (-1: the last), for an input of `rank` axes
  // (nothing: not known). Nothing where the opset has only the flattening form and that is another.
  static std::optional<Attributes> along(std::int64_t opset, std::int64_t axis,
                                         std::optional<std::size_t> rank);
};

}  // namespace onnxpress
