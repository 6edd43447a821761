// What is known of the terminal, and the one progress line.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace onnxpress {

// Columns of the terminal behind `descriptor`, else of $COLUMNS, else 80.
std::size_t terminal_width(int descriptor);
// True on a terminal that understands colour, unless NO_COLOR is set (no-color.org).
bool wants_colour(int descriptor);

// Thrown when the reader of standard output has gone (SIGPIPE is ignored): the run ends quietly.
struct BrokenPipe {};
// Whether `descriptor` is a pipe or socket that nobody reads.
bool is_broken_pipe(int descriptor);
// Writes everything; throws BrokenPipe or Error.
void write_to(int descriptor, std::string_view text);
// Control characters of names in models would move the cursor or colour the screen: they become '?'.
std::string printable(std::string_view text);
// "onnxpress: TEXT" as one line, printable, line ends as blanks.
std::string message_line(std::string_view text);

// "[#####...............]  25 %": `done` of `total` in `width` marks.
std::string progress_bar(std::int64_t done, std::int64_t total, std::size_t width);

// A single line on standard error that is overwritten; nothing unless that is a terminal.
class Progress {
 public:
  enum class Mode { quiet, automatic, verbose };
  explicit Progress(Mode mode);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // A new stage, one of several where `total` is given; verbose mode prints it as a line of its
  // own.
  void stage(const std::string& text, std::size_t done = 0, std::size_t total = 0);
  // How many samples of the stage are done, as a bar with what is left of the time; shown at most
  // ten times a second.
  void advance(std::int64_t done, std::int64_t total);
  // The same with other words behind the bar.
  void advance(std::int64_t done, std::int64_t total, const std::string& text);
  void clear();
  Mode mode() const { return mode_; }

 private:
  void show(const std::string& text);
  bool is_time();  // to show something again

  Mode mode_;
  bool live_;
  bool shown_ = false;
  std::string stage_;
  std::chrono::steady_clock::time_point last_{}, started_{};
};

}  // namespace onnxpress
