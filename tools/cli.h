// The command: parses arguments, runs a verb, turns whatever happens into an exit status.
#pragma once

namespace onnxpress {

// Exit statuses, as diff has them.
inline constexpr int status_done = 0;
inline constexpr int status_missed = 1;  // a gate was missed or a pass was rolled back
inline constexpr int status_failed = 2;  // could not be done; nothing is left or changed

int run_command(int argc, char** argv);

}  // namespace onnxpress
