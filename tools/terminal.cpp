#include "tools/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "graph/base/error.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

constexpr std::size_t bar_width = 20;

}  // namespace

std::size_t terminal_width(int descriptor) {
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  if (const char* columns = std::getenv("COLUMNS"))
    if (const long value = std::strtol(columns, nullptr, 10); value > 0)
      return static_cast<std::size_t>(value);
  return 80;
}

bool wants_colour(int descriptor) {
  if (const char* off = std::getenv("NO_COLOR"); off != nullptr && *off != '\0') return false;
  const char* term = std::getenv("TERM");
  return isatty(descriptor) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

bool is_broken_pipe(int descriptor) {
  pollfd waiting{.fd = descriptor, .events = POLLOUT, .revents = 0};
  return poll(&waiting, 1, 0) > 0 && (waiting.revents & POLLERR) != 0;
}

std::string printable(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return result;
}

std::string message_line(std::string_view text) {
  std::string line(text);
  std::ranges::replace(line, '\n', ' ');
  return "onnxpress: " + printable(line) + '\n';
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

std::string progress_bar(std::int64_t done, std::int64_t total, std::size_t width) {
  const double share =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 0;
  const auto marks = static_cast<std::size_t>(share * static_cast<double>(width));
  return fmt::format("[{}{}] {:3.0f} %", std::string(marks, '#'), std::string(width - marks, '.'),
                     std::floor(share * 100));
}

void Progress::stage(const std::string& text, std::size_t done, std::size_t total) {
  stage_ = total > 0 ? fmt::format("{} ({} of {})", text, done + 1, total) : text;
  started_ = std::chrono::steady_clock::now();
  if (mode_ == Mode::verbose)
    write_to(STDERR_FILENO, "onnxpress: " + stage_ + "\n");
  else if (total > 0)
    show(
        progress_bar(static_cast<std::int64_t>(done), static_cast<std::int64_t>(total), bar_width) +
        " " + stage_);
  else
    show(stage_);
  last_ = started_;
}

void Progress::advance(std::int64_t done, std::int64_t total) {
  if (!is_time()) return;
  std::string line = fmt::format("{} {}: {} of {} samples", progress_bar(done, total, bar_width),
                                 stage_, done, total);
  const double spent = std::chrono::duration<double>(last_ - started_).count();
  if (done > 0 && done < total && spent >= 1)
    line += ", " +
            human_seconds(spent / static_cast<double>(done) * static_cast<double>(total - done)) +
            " left";
  show(line);
}

void Progress::advance(std::int64_t done, std::int64_t total, const std::string& text) {
  if (is_time()) show(progress_bar(done, total, bar_width) + " " + text);
}

bool Progress::is_time() {
  if (!live_) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < std::chrono::milliseconds(100)) return false;
  last_ = now;
  return true;
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
