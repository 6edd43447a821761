// Batches cut into pieces that run in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "graph/exec/dataset.h"
#include "graph/ir/model.h"

namespace onnxpress {

// How many samples a model is run with at once, so that its activations stay small.
class SampleSlices {
 public:
  explicit SampleSlices(const Model& model);

  // Calls run with the inputs of a few samples after another. A batch goes whole when the leading
  // dims of the inputs are declared as numbers, or do not count samples.
  void for_each(const Batch& batch, const std::function<void(std::span<const Tensor>)>& run);
  // The inputs of as many samples from the start of the batch as run at once.
  std::vector<Tensor> first(const Batch& batch);

 private:
  bool may_be_cut(const Batch& batch) const;
  std::int64_t most_samples(const Batch& batch);
  std::int64_t samples_at_once(const Batch& batch);

  const Model& model_;
  bool has_open_batch_ = false;
  std::map<std::vector<Dims>, std::int64_t> known_;  // by the dims of one sample
};

}  // namespace onnxpress
