// Runs the built command as a shell would.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace onnxpress {

struct CommandResult {
  int status = -1;  // exit status, or 128 + signal
  std::string out, err;
};

struct CommandOptions {
  std::string input;                     // standard input
  std::filesystem::path folder;          // working directory
  std::string out_path;                  // standard output goes to this file (/dev/full)
  std::optional<std::size_t> file_size;  // RLIMIT_FSIZE: a disk that fills up
  std::optional<int> kill_after_us;      // SIGKILL after so many microseconds
  bool close_output = false;             // nobody reads standard output
};

// Runs onnxpress with `arguments`; NO_COLOR and a fixed locale are set.
CommandResult run_onnxpress(const std::vector<std::string>& arguments,
                            const CommandOptions& options = {});

}  // namespace onnxpress
