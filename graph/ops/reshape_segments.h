// Which axes of a Reshape's input become which of its output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "graph/ops/infer.h"

namespace onnxpress {

// Axes of a Reshape's input and as many elements of its output, as few as they can be. Axes of size
// 1 may have nothing on the other side.
struct ReshapeSegment {
  std::vector<std::int64_t> inputs, outputs;
};
using SegmentAxes = std::vector<std::int64_t> ReshapeSegment::*;

// In order; nothing where too little is known of the dims.
std::optional<std::vector<ReshapeSegment>> reshape_segments(const Shape& in, const Shape& out);

// The order in which `permutation`, of the axes of one side, reads the segments; nothing where it
// takes one apart. Segments without axes on that side stay in front of the one after them.
std::optional<std::vector<std::size_t>> segment_order(const std::vector<ReshapeSegment>& segments,
                                                      SegmentAxes side,
                                                      const std::vector<std::int64_t>& permutation);

// The axes of one side with the segments in that order.
std::vector<std::int64_t> axes_in_order(const std::vector<ReshapeSegment>& segments,
                                        SegmentAxes side, const std::vector<std::size_t>& order);

}  // namespace onnxpress
