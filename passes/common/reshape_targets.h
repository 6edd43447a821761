// What becomes of one axis behind Reshape and its kin, and new targets for smaller inputs.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/ir/graph.h"

namespace onnxpress {

// Reshape, Flatten, Squeeze, Unsqueeze.
bool is_reshape(const Node& node);

// Where the elements along an axis are after the same elements got other dims.
struct ReshapedAxis {
  std::size_t axis = 0;
  // Each element becomes so many in a row; 0: several in a row become one.
  std::int64_t repeat = 1;
};
// Nothing where the axis does not stay together, or too little is known of the dims.
std::optional<ReshapedAxis> reshaped_axis(const Value& from, std::size_t axis, const Value& to);

// Whether a Reshape's target can be written anew when its result's known dims change: it is
// constant, or all but one of the dims are known or copied. True for the others, which have none.
bool can_retarget(const Node& node);
// Writes the target anew, as a constant, for the result's type as it is now; `changed` is an axis of
// the result whose size is not what it was. For nodes that can_retarget.
void retarget(Node& node, std::size_t changed);

}  // namespace onnxpress
