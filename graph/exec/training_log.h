// What training did, written as it is done: JSON Lines for programs, event files for TensorBoard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/exec/fit.h"

namespace onnxpress {

struct TrainingLogFiles {
  std::filesystem::path json_lines;   // one object a line; "-": standard output; empty: none
  std::filesystem::path tensorboard;  // a folder; empty: none
  std::int64_t every = 1;             // steps (updates) that one record stands for; epochs are always written
  bool append = false;                // a run that goes on: records of what is not done again are kept
};

// Lines are {"type":"begin",...}, {"type":"step",...} and {"type":"epoch",...} with the name of the pass, the number of
// the training from 1 and the fields of FitStart, StepRecord and EpochRecord; what is not there, or not finite, is
// null. A step's loss is the mean since the last record. Tags are train/loss, train/loss_1 ... (terms), train/learning_rate
// and train/gradient_norm by step, and epoch/loss, epoch/held_out_loss, epoch/held_out_accuracy and
// epoch/samples_per_second by the updates so far. The first training is the run of the folder itself, the n-th one that
// of its folder "n-PASS".
class TrainingLog {
 public:
  // Files are made when a training begins: what is refused before leaves none.
  explicit TrainingLog(TrainingLogFiles files);
  ~TrainingLog();
  TrainingLog(const TrainingLog&) = delete;
  TrainingLog& operator=(const TrainingLog&) = delete;

  // The next training, of a pass. Each throws Error when a file cannot be made or written (full disk).
  void begin(const std::string& pass, const FitStart& start);
  void step(const StepRecord& record);
  void epoch(const EpochRecord& record);
  // Of one training: calls `further` and then the log.
  static FitObserver observer(std::shared_ptr<TrainingLog> log, std::string pass, FitObserver further = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace onnxpress
