// A report laid out for people: headings, tables and lists, before it is known where they go.
#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "passes/core/pass.h"

namespace onnxpress {

enum class Tone { plain, strong, good, bad, dim };

struct Cell {
  std::string text;
  Tone tone = Tone::plain;

  Cell() = default;
  Cell(std::string words, Tone how = Tone::plain) : text(std::move(words)), tone(how) {}  // NOLINT
  Cell(const char* words) : text(words) {}                                                // NOLINT
};

struct Column {
  std::string header;
  bool right = false;    // numbers
  bool shrinks = false;  // names: cut in the middle where the terminal is narrow
  bool wraps = false;    // sentences: continued below, between words, where it is narrow
};

struct Table {
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
};

struct Heading {
  std::string text;
};

// Lines, each a sentence of its own.
struct Lines {
  std::vector<Cell> lines;
};

using Block = std::variant<Heading, Table, Lines>;
using Document = std::vector<Block>;

// Lays out any report of schema "onnxpress.report/1". `verbose` leaves nothing out.
Document layout(const Json& report, bool verbose);

// Where a terminal rendering goes.
struct TerminalStyle {
  std::size_t width = 100;
  bool colour = false;
  bool utf8 = false;  // rules and dots of Unicode
};
std::string render_terminal(const Document& document, const TerminalStyle& style);
std::string render_markdown(const Document& document);

}  // namespace onnxpress
