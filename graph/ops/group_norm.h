// InstanceNormalization, GroupNormalization and LpNormalization.
#pragma once

#include "graph/ops/call.h"

namespace onnxpress {

struct GroupNormAttrs {
  std::int64_t groups = 0;  // 0: one per channel (InstanceNormalization)
  float epsilon = 1e-5f;

  static GroupNormAttrs from(const Node& node);
  Attributes to_attributes() const;
};

// The opset from which GroupNormalization's scale and bias go by channel; before, by group.
inline constexpr std::int64_t group_norm_by_channel_since = 21;

// LpNormalization by the Euclidean norm along one axis.
Attributes l2_normalization_attributes(std::int64_t axis);

}  // namespace onnxpress
