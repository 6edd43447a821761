// What fitting (graph/exec/fit.h) tells while it goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace onnxpress {

// What is told when fitting begins.
struct FitStart {
  std::int64_t samples = 0, held_out = 0;  // trained on in an epoch, and held out
  std::int64_t epochs = 0, batch = 0;
  std::int64_t first_epoch = 1;  // later when a run is resumed
};

// One batch.
struct StepRecord {
  std::int64_t step = 0;   // updates so far
  std::int64_t epoch = 0;  // from 1
  std::int64_t done = 0, total = 0;  // samples of the epoch
  double loss = 0;
  std::vector<double> terms;  // of the loss, when there are several
  double rate = 0;            // the learning rate of the last update
  double norm = 0;            // of its gradients; 0 unless clipped by norm
};

struct EpochRecord {
  std::int64_t epoch = 0;  // from 1; 0: how the model was at the start (FitOptions::keep_start)
  std::int64_t step = 0;   // updates so far
  double loss = 0;         // mean over the steps
  std::optional<double> held_loss, held_accuracy;  // accuracy where labels are classes
  double rate = 0;         // the learning rate of the last step
  double seconds = 0;
  std::int64_t samples = 0;
};

// What has been done, told as it is done.
struct FitObserver {
  std::function<void(const FitStart&)> begin = {};
  std::function<void(const StepRecord&)> step = {};
  std::function<void(const EpochRecord&)> epoch = {};
};

}  // namespace onnxpress
