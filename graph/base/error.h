// The one exception type of onnxpress and its context trail.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace onnxpress {

// What ends a run: a message (lower case: what was expected, what was found) and a trail of
// contexts, outermost first ("reading model.onnx / graph 'main' / node 'conv3' (Conv)").
class Error : public std::exception {
 public:
  explicit Error(std::string message);

  // "context / context: message".
  const char* what() const noexcept override { return text_.c_str(); }
  const std::string& message() const { return message_; }
  const std::vector<std::string>& trail() const { return trail_; }

  // Adds an outer context; returns itself so that a handler can `throw error.within(...)`.
  Error& within(std::string context);

 private:
  void render();

  std::string message_;
  std::vector<std::string> trail_;
  std::string text_;
};

// Throws an Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Throws an Error with a formatted message unless `condition` holds.
template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Runs `body`; an Error that leaves it gets the context that `describe()` returns.
template <class Describe, class Body>
decltype(auto) in_context(Describe&& describe, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (Error& error) {
    error.within(std::string(describe()));
    throw;
  }
}

// The name of `candidates` nearest to `name` by edit distance, or empty when none is near
// (used by "unknown pass 'x'; did you mean 'y'?").
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace onnxpress
