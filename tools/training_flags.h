// What verbs that train are given beside the options of a pass.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "passes/core/pass.h"
#include "tools/session.h"

namespace onnxpress {

struct TrainingJob {
  std::string data, labels;  // --train, --train-labels; empty: none
  std::string checkpoint;
  bool resume = false;
  std::int64_t checkpoint_updates = 0;
  std::string log, tensorboard;  // a file and a folder; empty: none
  std::int64_t log_every = 1;

  // Files that a run reads and writes.
  std::vector<std::string> inputs() const { return {data, labels}; }
  std::vector<std::string> outputs() const { return {checkpoint, log}; }
};

class TrainingFlags {
 public:
  void declare(CLI::App& app);
  // Throws Error naming the option.
  TrainingJob job() const;

 private:
  TrainingJob job_;
  std::string updates_, every_;
};

// The checkpoint.
TrainingSupport training_support(const TrainingJob& job);
// By the name of a pass: progress on the session's terminal, and logs, which all trainings of a run share. Their files
// are made when training begins.
std::function<FitObserver(const std::string& pass)> training_observers(const TrainingJob& job, Session& session);

}  // namespace onnxpress
