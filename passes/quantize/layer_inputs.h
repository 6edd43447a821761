// Columns that the weights of a model are multiplied with on calibration data, streamed batch by
// batch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/exec/dataset.h"
#include "passes/core/pass.h"
#include "passes/quantize/column_reader.h"

namespace onnxpress {

// A bounded, evenly spread part of a dataset, in its order. Batches are kept as long as they are
// small together, else read again for every pass.
class CalibrationSubset {
 public:
  // At most about `samples`: whole batches. Throws Error when there is no sample.
  CalibrationSubset(Dataset& data, std::int64_t samples);
  std::int64_t samples() const { return samples_; }
  // Some batches at a time, the same ones in every pass.
  void for_each_chunk(const std::function<void(std::span<const Batch>)>& fn);

 private:
  bool takes(std::int64_t seen, std::int64_t used) const;

  Dataset& data_;
  std::int64_t samples_;
  bool may_keep_ = true, kept_all_ = false;
  std::vector<std::vector<Batch>> kept_;
};

// A layer whose columns are wanted. Readers are of the same matrix, one per operator that reads the
// weight; their sources are values of the model given to stream_columns().
struct ColumnRequest {
  std::vector<const ColumnReader*> readers;
  std::int64_t most = 0;  // columns in all, about; fewer where a batch has fewer
};

// Columns of one layer in some batches: [groups, count, depth].
struct ColumnBlock {
  std::int64_t count = 0;
  std::span<const float> exact;    // of the model
  std::span<const float> rounded;  // of the model with weights rounded, at the same positions
};

// Runs `model` on the data and calls take(layer, block) for some batches at a time and every layer, in order. With
// `rounded`, a model that differs from it in the contents of constants only, that is run as well;
// else both parts of a block are the same. Only what the sources depend on is computed. Positions
// are drawn evenly, by `seed`. Batches run side by side on the threads of the pool;
// memory: an engine for each, and the columns of some batches.
void stream_columns(const Model& model, const Model* rounded, const std::vector<ColumnRequest>& layers,
                    CalibrationSubset& data, PassContext& context,
                    const std::function<void(std::size_t layer, const ColumnBlock& block)>& take);

}  // namespace onnxpress
