#include "graph/ir/lexer.h"

#include <algorithm>
#include <cctype>

#include "graph/ir/text.h"

namespace onnxpress::text {
namespace {

bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

bool is_number_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '-' || c == '.';
}

}  // namespace

std::size_t Lexer::line() const {
  const std::string_view before = text_.substr(0, position_);
  return static_cast<std::size_t>(std::ranges::count(before, '\n')) + 1;
}

void Lexer::skip_blanks() {
  while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\t'))
    ++position_;
}

void Lexer::skip_space() {
  while (position_ < text_.size()) {
    if (text_[position_] == '#')
      position_ = std::min(text_.find('\n', position_), text_.size());
    else if (std::isspace(static_cast<unsigned char>(text_[position_])))
      ++position_;
    else
      return;
  }
}

bool Lexer::at_end() {
  skip_space();
  return position_ == text_.size();
}

bool Lexer::at_line_end() {
  const char c = peek_on_line();
  return c == 0 || c == '\n' || c == '\r' || c == '#' || c == '}';
}

char Lexer::peek() {
  skip_space();
  return position_ < text_.size() ? text_[position_] : '\0';
}

char Lexer::peek_on_line() {
  skip_blanks();
  return position_ < text_.size() ? text_[position_] : '\0';
}

bool Lexer::accept(char c) {
  const std::size_t start = position_;
  const bool found = peek() == c;
  position_ = found ? position_ + 1 : start;
  return found;
}

void Lexer::expect(char c) {
  if (!accept(c)) fail_expecting(std::string{'\'', c, '\''});
}

bool Lexer::accept_word(std::string_view wanted) {
  const std::size_t start = position_;
  if (word() == wanted) return true;
  position_ = start;
  return false;
}

std::string Lexer::word() {
  skip_space();
  return take_while(is_word_char);
}

std::string Lexer::name() {
  if (peek() == '"') return quoted();
  std::string bare = take_while(is_name_char);
  while (bare.ends_with(':')) {
    bare.pop_back();
    --position_;
  }
  if (bare.empty()) fail_expecting("a name");
  return bare;
}

std::string Lexer::quoted() {
  if (peek() != '"') fail_expecting("a quoted text");
  std::string result;
  for (++position_; position_ < text_.size() && text_[position_] != '"'; ++position_) {
    if (text_[position_] != '\\') {
      result += text_[position_];
      continue;
    }
    const char escape = ++position_ < text_.size() ? text_[position_] : '\0';
    if (escape == 'n') {
      result += '\n';
    } else if (escape == '"' || escape == '\\') {
      result += escape;
    } else {
      unsigned code = 0;
      const std::string_view digits =
          escape == 'x' ? text_.substr(position_ + 1, 2) : std::string_view();
      const char* end = digits.data() + digits.size();
      if (digits.size() != 2 || std::from_chars(digits.data(), end, code, 16).ptr != end)
        fail_expecting("an escape: \\n, \\\", \\\\ or \\xHH");
      result += static_cast<char>(code);
      position_ += 2;
    }
  }
  if (position_ == text_.size()) fail_expecting("a closing quote");
  ++position_;
  return result;
}

std::string Lexer::until(std::string_view stops) {
  skip_space();
  std::string taken = take_while([&](char c) { return stops.find(c) == std::string_view::npos; });
  while (!taken.empty() && std::isspace(static_cast<unsigned char>(taken.back()))) taken.pop_back();
  return taken;
}

std::string Lexer::number_text() {
  skip_space();
  return take_while(is_number_char);
}

std::int64_t Lexer::integer() { return to_number<std::int64_t>(number_text()); }

void Lexer::fail_expecting(std::string_view what) {
  skip_blanks();
  const std::string_view rest = text_.substr(std::min(position_, text_.size()));
  const std::string_view shown = rest.substr(0, std::min<std::size_t>(rest.find('\n'), 20));
  if (rest.empty()) fail("expected {}, found the end", what);
  if (shown.empty()) fail("expected {}, found the end of the line", what);
  fail("expected {}, found '{}'", what, shown);
}

}  // namespace onnxpress::text
