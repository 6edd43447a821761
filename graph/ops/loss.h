// NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/ir/graph.h"

namespace onnxpress {

struct LossAttrs {
  enum class Reduction { none, sum, mean } reduction = Reduction::mean;
  std::optional<std::int64_t> ignored;  // a target that counts nowhere

  static LossAttrs from(const Node& node);
};

// Scores [samples, classes, inner...] and targets [samples, inner...].
struct LossShape {
  std::int64_t samples, classes, inner;

  // Throws Error when they do not fit together.
  LossShape(const Dims& scores, const Dims& targets);
};

}  // namespace onnxpress
