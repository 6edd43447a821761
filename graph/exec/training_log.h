// What training did, written as it is done: JSON Lines for programs, event files for TensorBoard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/exec/fit.h"

namespace onnxpress {

struct TrainingLogFiles {
  std::filesystem::path json_lines;   // one object a line; empty: none
  std::filesystem::path tensorboard;  // a folder; empty: none
  std::int64_t every = 1;             // steps (updates) that one record stands for; epochs are always written
  bool append = false;                // a run that goes on: what json_lines holds is kept
};

// Lines are {"type":"begin",...}, {"type":"step",...} and {"type":"epoch",...} with the fields of FitStart, StepRecord
// and EpochRecord; what is not there, or not finite, is null. A step's loss is the mean since the last record. Tags are
// train/loss, train/loss_1 ... (terms), train/learning_rate and train/gradient_norm by step, and epoch/loss,
// epoch/held_out_loss, epoch/held_out_accuracy and epoch/samples_per_second by the updates so far; a second training
// goes on from the steps of the first.
class TrainingLog {
 public:
  // Makes the files. Throws Error when they cannot be made.
  explicit TrainingLog(TrainingLogFiles files);
  ~TrainingLog();
  TrainingLog(const TrainingLog&) = delete;
  TrainingLog& operator=(const TrainingLog&) = delete;

  // Each throws Error when it cannot be written (full disk).
  void begin(const FitStart& start);
  void step(const StepRecord& record);
  void epoch(const EpochRecord& record);
  // Calls `further` and then the log.
  static FitObserver observer(std::shared_ptr<TrainingLog> log, FitObserver further = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace onnxpress
