// What a process has taken at most.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "graph/base/error.h"

namespace onnxpress {

// The largest resident set so far in bytes, mapped pages included. Not getrusage's: that one begins
// with what the parent process had.
inline std::int64_t peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  fail("no VmHWM in /proc/self/status");
}

}  // namespace onnxpress
