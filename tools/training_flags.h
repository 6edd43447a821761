// What verbs that train are given beside the options of a pass.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
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

// The checkpoint, progress on the session's terminal, and logs, whose files are made now.
TrainingSupport training_support(const TrainingJob& job, Session& session);

}  // namespace onnxpress
