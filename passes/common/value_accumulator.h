// Statistics of one value while they are gathered: internal to calibration.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ir/tensor.h"
#include "passes/common/calibration.h"
#include "passes/common/exact_sum.h"

namespace onnxpress {

// Counters of each worker, shared by all values.
struct HistogramScratch {
  explicit HistogramScratch(int threads) : counts(static_cast<std::size_t>(threads)) {}
  std::vector<std::vector<std::uint32_t>> counts;  // by worker: two tables of bins
};

class ValueAccumulator {
 public:
  ValueAccumulator(bool with_histogram, std::optional<std::int64_t> channel_axis);

  // Folds in a floating-point tensor; others are left out.
  void observe(const Tensor& tensor, ThreadPool& pool, HistogramScratch& scratch);
  // Needs dims in the order of the model's.
  bool has_channels() const { return statistics_.channel_axis.has_value(); }
  bool is_seen() const { return observations_ > 0; }
  ValueStatistics finish() const;

 private:
  void fold(std::span<const float> values, ThreadPool& pool, HistogramScratch& scratch);
  void count(std::span<const float> values, ThreadPool& pool, HistogramScratch& scratch);
  void fold_channels(const Tensor& tensor, ThreadPool& pool);
  void average(float low, float high);

  bool with_histogram_;
  std::int64_t observations_ = 0;
  std::int64_t averaged_ = 0;
  ValueStatistics statistics_;
  std::vector<ExactSum> channel_sums_;
  std::vector<std::int64_t> channel_counts_;
};

}  // namespace onnxpress
