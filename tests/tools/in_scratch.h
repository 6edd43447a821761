// The command run in a scratch folder, and what it says.
#pragma once

#include <string>
#include <vector>

#include "tests/tools/command.h"
#include "tests/tools/data/scratch.h"

namespace onnxpress {

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline CommandResult in(const Scratch& scratch, const std::vector<std::string>& arguments,
                        CommandOptions options = {}) {
  options.folder = scratch.path();
  return run_onnxpress(arguments, options);
}

}  // namespace onnxpress
