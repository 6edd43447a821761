// What the elements of a shape computation are.
#pragma once

#include <optional>
#include <vector>

#include "graph/ops/infer.h"

namespace onnxpress {

// An element of a computed shape.
struct ShapeEntry {
  Dim dim;                      // as far as it is known
  bool is_minus_one = false;
  const Value* of = nullptr;    // the element is the dim of this value along `axis`, even where
  std::size_t axis = 0;         // neither number nor symbol is known
};

// The elements of an integer value of rank 0 or 1, traced through Shape, Gather, Slice, Concat,
// Squeeze, Unsqueeze and Cast; nothing when not even their number is known.
std::optional<std::vector<ShapeEntry>> shape_entries(const TypeInference& types, const Value* value);

}  // namespace onnxpress
