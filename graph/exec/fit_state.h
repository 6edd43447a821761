// What fitting remembers from epoch to epoch. Internal to graph/exec.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/exec/fit.h"

namespace onnxpress {

// Parameters and running statistics kept aside: the best so far, or their moving average.
class KeptParameters {
 public:
  bool is_there() const { return !values_.empty(); }
  void copy(const Trainer& trainer);
  // values = decay * values + (1 - decay) * the trainer's; a copy at first.
  void blend(const Trainer& trainer, double decay);
  // Exchanges with the trainer's.
  void swap(Trainer& trainer);
  void save(FitState& state, const std::string& prefix) const;
  void restore(const FitState& state, const std::string& prefix, const Trainer& trainer);

 private:
  std::vector<Tensor> values_;
};

// Where a training is, beside its parameters.
struct FitPosition {
  std::int64_t epoch = 1;    // the one that is being done, or that comes next
  std::int64_t samples = 0;  // done of it
  double sum = 0;            // of their losses, by batch
  double rate = 0;           // of the last update
  std::int64_t batches = 0;
  std::optional<double> best;
  std::int64_t best_epoch = 0, without_better = 0;
  bool stopped_early = false;
  std::vector<EpochRecord> records;

  void save(FitState& state) const;
  static FitPosition restore(const FitState& state);
};

}  // namespace onnxpress
