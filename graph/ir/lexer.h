// The words of the text language (graph/ir/parse.h); not for other layers.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "graph/base/error.h"

namespace onnxpress::text {

// Reads tokens of a text. Every read skips white space and comments first; "on this line" means
// that a line break is not skipped. Failed reads throw Error or, when named accept_, return false
// and stay where they are.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::size_t line() const;
  bool at_end();
  bool at_line_end();  // or before a closing brace
  char peek();         // 0 at the end
  char peek_on_line();
  bool accept(char c);
  void expect(char c);
  // An identifier of letters, digits and _.
  bool accept_word(std::string_view word);
  std::string word();
  // A bare or quoted name; bare ones do not end with a colon.
  std::string name();
  std::string quoted();
  // Characters up to one of `stops`, trimmed: a number or a dimension's symbol.
  std::string until(std::string_view stops);
  // Letters, digits, sign and dot.
  std::string number_text();
  std::int64_t integer();

  std::size_t position() const { return position_; }
  void rewind(std::size_t position) { position_ = position; }
  // Throws an Error: what was expected, what is there.
  [[noreturn]] void fail_expecting(std::string_view what);

 private:
  void skip_blanks();
  void skip_space();
  template <class Predicate>
  std::string take_while(Predicate predicate) {
    const std::size_t start = position_;
    while (position_ < text_.size() && predicate(text_[position_])) ++position_;
    return std::string(text_.substr(start, position_ - start));
  }

  std::string_view text_;
  std::size_t position_ = 0;
};

// The number that is all of `digits`; throws Error when it is none or out of range.
template <class T>
T to_number(std::string_view digits) {
  T value{};
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  require(error == std::errc() && stop == end && !digits.empty(), "'{}' is not a number {}", digits,
          error == std::errc::result_out_of_range ? "in range" : "of this kind");
  return value;
}

}  // namespace onnxpress::text
