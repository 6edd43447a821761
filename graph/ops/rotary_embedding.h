// Rotary position embedding (https://arxiv.org/abs/2104.09864).
#pragma once

#include "graph/ops/attention_core.h"

namespace onnxpress {

struct RotaryTask {
  std::int64_t batch = 0, heads = 0, rows = 0, width = 0;
  bool interleaved = false;              // pairs are neighbours, else half the rotated width apart
  std::vector<std::int64_t> cache_rows;  // by [batch, rows]: row of the caches
};

// Rotates the first elements of every head, twice as many as the caches [positions, half] have
// columns, and copies the others. Throws Error for positions that the caches do not have.
template <class T>
void rotate(ThreadPool& pool, const RotaryTask& task, const Tensor& cosines, const Tensor& sines,
            HeadsView<const T> x, HeadsView<T> y);

}  // namespace onnxpress
