// Attention and MultiHeadAttention of com.microsoft.
#pragma once

#include <vector>

#include "graph/ops/call.h"

namespace onnxpress {

struct ContribAttentionAttrs {
  std::int64_t heads = 0;
  float scale = 0;        // 0: 1 / sqrt(head width)
  float filter = -10000;  // added to the scores of masked keys
  bool causal = false;
  std::vector<std::int64_t> hidden;  // Attention: columns of Q, K and V; empty: a third each

  static ContribAttentionAttrs from(const Node& node);
  Attributes to_attributes() const;
};

}  // namespace onnxpress
