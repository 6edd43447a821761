#include "graph/base/descriptor.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace onnxpress {

bool write_fully(int descriptor, std::span<const std::byte> bytes) {
  constexpr std::size_t most = std::size_t{1} << 30;  // one call takes at most 2 GB less a page
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), std::min(bytes.size(), most));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

std::string_view kind_of_file(mode_t mode) {
  if (S_ISREG(mode)) return "a regular file";
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

std::string name_of_descriptor(int descriptor) {
  if (descriptor == STDIN_FILENO) return "standard input";
  if (descriptor == STDOUT_FILENO) return "standard output";
  if (descriptor == STDERR_FILENO) return "standard error";
  return fmt::format("descriptor {}", descriptor);
}

}  // namespace onnxpress
