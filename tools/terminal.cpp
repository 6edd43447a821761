#include "tools/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "graph/base/error.h"

namespace onnxpress {

std::size_t terminal_width(int descriptor) {
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  if (const char* columns = std::getenv("COLUMNS"))
    if (const long value = std::strtol(columns, nullptr, 10); value > 0)
      return static_cast<std::size_t>(value);
  return 100;
}

bool wants_colour(int descriptor) {
  if (const char* off = std::getenv("NO_COLOR"); off != nullptr && *off != '\0') return false;
  const char* term = std::getenv("TERM");
  return isatty(descriptor) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

void write_to(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EPIPE) {
      throw BrokenPipe{};
    } else if (errno != EINTR) {
      fail("cannot write to standard {}: {}", descriptor == STDERR_FILENO ? "error" : "output",
           std::strerror(errno));
    }
  }
}

Progress::Progress(Mode mode)
    : mode_(mode), live_(mode == Mode::automatic && isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (!shown_) return;
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, "\r\033[K", 4);
}

void Progress::stage(const std::string& text) {
  stage_ = text;
  if (mode_ == Mode::verbose)
    write_to(STDERR_FILENO, "onnxpress: " + text + "\n");
  else
    show(text);
  last_ = std::chrono::steady_clock::now();
}

void Progress::advance(std::int64_t done, std::int64_t total) {
  if (!live_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  show(fmt::format("{}: {} of {} samples", stage_, done, total));
}

void Progress::clear() {
  if (shown_) write_to(STDERR_FILENO, "\r\033[K");
  shown_ = false;
}

void Progress::show(const std::string& text) {
  if (!live_) return;
  const std::size_t width = terminal_width(STDERR_FILENO);
  write_to(STDERR_FILENO, "\r\033[K" + text.substr(0, width > 1 ? width - 1 : 0));
  shown_ = true;
}

}  // namespace onnxpress
