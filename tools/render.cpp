// Renderings of a document: aligned columns for a terminal, and Markdown.
#include <algorithm>
#include <numeric>

#include "tools/document.h"
#include "tools/terminal.h"

namespace onnxpress {

namespace {

// Columns that UTF-8 text takes: code points, as names in models rarely hold wide characters.
std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// Text of at most `width` columns; what is cut is cut in the middle.
std::string shortened(const std::string& text, std::size_t width) {
  if (display_width(text) <= width) return text;
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (!std::all_of(text.begin(), text.end(), is_ascii) || width < 5) return text;
  const std::size_t tail = (width - 2) / 2, head = width - 2 - tail;
  return text.substr(0, head) + ".." + text.substr(text.size() - tail);
}

// Where to break a word that is longer than a line: behind a brace, comma or slash, else where it is full.
std::size_t break_of(const std::string& word, std::size_t width) {
  const std::size_t found = word.find_last_of("{,/", width - 1);
  return found == std::string::npos || found == 0 ? width : found + 1;
}

// `text` in lines of at most `width` columns, broken at blanks, and longer words (of ASCII) in
// them.
std::vector<std::string> wrapped(const std::string& text, std::size_t width) {
  std::vector<std::string> lines{""};
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    if (!lines.back().empty() && display_width(lines.back()) + 1 + display_width(word) > width)
      lines.emplace_back();
    else if (begin > 0)
      lines.back() += ' ';
    while (display_width(word) > width && display_width(word) == word.size()) {
      const std::size_t cut = break_of(word, width);
      lines.back() += word.substr(0, cut);
      lines.emplace_back();
      word.erase(0, cut);
    }
    lines.back() += word;
    begin = end + 1;
  }
  return lines;
}

std::string_view escape_of(Tone tone) {
  switch (tone) {
    case Tone::plain:
      return "";
    case Tone::strong:
      return "\033[1m";
    case Tone::good:
      return "\033[32m";
    case Tone::bad:
      return "\033[1;31m";
    case Tone::dim:
      return "\033[2m";
  }
  return "";
}

class TerminalWriter {
 public:
  explicit TerminalWriter(const TerminalStyle& style) : style_(style) {}

  std::string write(const Document& document) {
    for (const Block& block : document) {
      if (!text_.empty() && !after_heading_) text_ += '\n';
      after_heading_ = false;
      std::visit([&](const auto& content) { add(content); }, block);
    }
    return std::move(text_);
  }

 private:
  static constexpr std::size_t gap = 2;

  void put(const std::string& text, Tone tone) {
    const std::string_view escape = style_.colour ? escape_of(tone) : "";
    text_ += escape;
    text_ += text;
    if (!escape.empty()) text_ += "\033[0m";
  }

  void add(const Heading& heading) {
    put(printable(heading.text), Tone::strong);
    text_ += '\n';
    after_heading_ = true;
  }

  void add(const Lines& lines) {
    for (const Cell& line : lines.lines) {
      put(printable(line.text), line.tone);
      text_ += '\n';
    }
  }

  std::vector<std::size_t> widths(const Table& table) const {
    std::vector<std::size_t> result;
    for (const Column& column : table.columns) result.push_back(display_width(column.header));
    for (const auto& row : table.rows)
      for (std::size_t i = 0; i < row.size(); ++i)
        result[i] = std::max(result[i], display_width(row[i].text));
    const auto narrow = [&](std::size_t least, const auto& may_give) {
      std::size_t total = std::accumulate(result.begin(), result.end(), gap * (result.size() - 1));
      for (; total > style_.width; --total) {
        std::size_t widest = result.size();
        for (std::size_t i = 0; i < result.size(); ++i)
          if (may_give(table.columns[i]) && result[i] > least &&
              (widest == result.size() || result[i] > result[widest]))
            widest = i;
        if (widest == result.size()) break;
        --result[widest];
      }
    };
    narrow(32, [](const Column& column) { return column.wraps; });
    narrow(12, [](const Column& column) { return column.shrinks; });
    narrow(16, [](const Column& column) { return column.wraps; });
    return result;
  }

  void add(const Table& table) {
    const std::vector<std::size_t> width = widths(table);
    std::vector<Cell> header;
    for (const Column& column : table.columns) header.emplace_back(column.header, Tone::dim);
    const bool headed = std::any_of(header.begin(), header.end(),
                                    [](const Cell& cell) { return !cell.text.empty(); });
    if (headed) {
      add_row(table, width, header);
      const std::size_t length =
          std::accumulate(width.begin(), width.end(), gap * (width.size() - 1));
      std::string rule;
      for (std::size_t i = 0; i < length; ++i) rule += style_.utf8 ? "\u2500" : "-";
      put(rule, Tone::dim);
      text_ += '\n';
    }
    for (const auto& row : table.rows) add_row(table, width, row);
  }

  // One row, over as many lines as its longest wrapped cell takes.
  void add_row(const Table& table, const std::vector<std::size_t>& width,
               const std::vector<Cell>& row) {
    std::vector<std::vector<Cell>> lines{row};
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (!table.columns[i].wraps) continue;
      const std::vector<std::string> parts = wrapped(printable(row[i].text), width[i]);
      for (std::size_t k = 0; k < parts.size(); ++k) {
        if (k == lines.size()) lines.emplace_back(row.size());
        lines[k][i] = Cell(parts[k], row[i].tone);
      }
    }
    for (const std::vector<Cell>& line : lines) add_line(table, width, line);
  }

  void add_line(const Table& table, const std::vector<std::size_t>& width,
                const std::vector<Cell>& row) {
    std::size_t pending = 0;  // spaces not written yet: none at the end of a line
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::string text = printable(row[i].text);
      if (table.columns[i].shrinks) text = shortened(text, width[i]);
      const std::size_t used = std::min(display_width(text), width[i]);
      const std::size_t space = width[i] - used;
      if (table.columns[i].right) pending += space;
      if (!text.empty()) {
        text_.append(pending, ' ');
        put(text, row[i].tone);
        pending = 0;
      } else {
        pending += used;
      }
      if (!table.columns[i].right) pending += space;
      pending += gap;
    }
    text_ += '\n';
  }

  TerminalStyle style_;
  std::string text_;
  bool after_heading_ = false;
};

// Text that Markdown would read as markup.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : printable(text)) {
    if (std::string_view("|\\`*_[]<>").find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

std::string emphasized(const Cell& cell) {
  const std::string text = escaped(cell.text);
  const bool strong = cell.tone == Tone::strong || cell.tone == Tone::bad;
  return strong && !text.empty() ? "**" + text + "**" : text;
}

struct MarkdownWriter {
  std::string text;

  void operator()(const Heading& heading) { text += "### " + escaped(heading.text) + "\n"; }
  void operator()(const Lines& lines) {
    for (const Cell& line : lines.lines) text += "- " + emphasized(line) + "\n";
  }
  void operator()(const Table& table) {
    text += '|';
    for (const Column& column : table.columns) text += ' ' + escaped(column.header) + " |";
    text += "\n|";
    for (const Column& column : table.columns) text += column.right ? "---:|" : "---|";
    text += '\n';
    for (const auto& row : table.rows) {
      text += '|';
      for (const Cell& cell : row) text += ' ' + emphasized(cell) + " |";
      text += '\n';
    }
  }
};

}  // namespace

std::string render_terminal(const Document& document, const TerminalStyle& style) {
  return TerminalWriter(style).write(document);
}

std::string render_markdown(const Document& document) {
  MarkdownWriter writer;
  for (const Block& block : document) {
    if (!writer.text.empty()) writer.text += '\n';
    std::visit(writer, block);
  }
  return std::move(writer.text);
}

}  // namespace onnxpress
