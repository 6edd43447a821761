// The options of one pass as options of a verb.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "passes/core/pipeline.h"

namespace onnxpress {

// Declares "--batch-size" for the option batch_size, and so on.
class PassFlags {
 public:
  // `skipped` options have no flag.
  void declare(CLI::App& app, const std::string& pass, const std::string& group,
               const std::vector<std::string>& skipped = {});
  // The step with what was said; throws Error naming the flag for wrong values.
  PipelineStep step() const;

 private:
  std::string pass_;
  std::map<std::string, std::string> values_;  // by option name
  std::map<std::string, CLI::Option*> flags_;
};

}  // namespace onnxpress
