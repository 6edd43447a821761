// BatchNormalization: Y = (X - mean) / sqrt(variance + epsilon) * scale + bias, by channel (axis
// 1).
#pragma once

#include <cstdint>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ops/call.h"

namespace onnxpress {

struct BatchNormAttrs {
  float epsilon = 1e-5f;
  float momentum = 0.9f;
  bool training = false;    // computes its own statistics
  bool unbiased = false;    // running variances follow the batch's of a sample, not a population
  bool per_channel = true;  // false: `spatial` = 0 before opset 9, statistics per activation
  bool keeps_statistics = false;  // outputs 3 and 4 are the batch's mean and variance, float64 (ours)

  // One reading of all forms: is_test (opset 6 and before), spatial, training_mode (opset 14).
  // Before opset 14 a node without is_test that has only its first output is inference. The
  // operator of the training domain (graph/ops/training_loss.h) computes the batch's statistics
  // whatever the opset, unbiased running variances, and for its gradient what it has used.
  static BatchNormAttrs from(const Node& node);

  // What running statistics keep of themselves in a batch of `count` values per channel: one value has no variance of a
  // sample, they stay.
  float momentum_for(double count) const { return unbiased && count <= 1 ? 1 : momentum; }
};

// The inputs seen as [batch, channels, cells].
struct BatchNormPlanes {
  std::int64_t batch, channels, cells;

  static BatchNormPlanes of(const Dims& dims, bool per_channel);
};

// By channel; the variance is that of the population.
struct BatchStatistics {
  std::vector<double> mean, variance;

  // Of x, float32 or float64.
  static BatchStatistics of(ThreadPool& pool, const BatchNormPlanes& planes, const Tensor& x);
};

}  // namespace onnxpress
