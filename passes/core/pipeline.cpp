#include "passes/core/pipeline.h"

#include <algorithm>

#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr std::string_view blanks = " \t\r\n";

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

class PipelineParser {
 public:
  explicit PipelineParser(std::string_view text) : text_(text) {}

  Pipeline parse() {
    Pipeline pipeline;
    skip_blanks();
    if (at_end()) return pipeline;
    while (true) {
      pipeline.steps.push_back(step());
      skip_blanks();
      if (at_end()) return pipeline;
      expect(',', "',' or the end");
    }
  }

 private:
  bool at_end() const { return at_ == text_.size(); }
  std::size_t column() const { return at_ + 1; }
  std::string here() const {
    return at_end() ? std::string("the end") : fmt::format("'{}'", text_[at_]);
  }

  void skip_blanks() { at_ = std::min(text_.find_first_not_of(blanks, at_), text_.size()); }

  // A value without quotes ends before a '='.
  bool holds_equals() {
    skip_blanks();
    return !at_end() && text_[at_] == '=';
  }

  bool accept(char c) {
    skip_blanks();
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c, std::string_view what) {
    if (!accept(c)) fail("expected {}, found {} at column {}", what, here(), column());
  }

  std::string name(std::string_view what) {
    skip_blanks();
    const std::size_t begin = at_;
    while (!at_end() && is_name_character(text_[at_])) ++at_;
    require(at_ > begin, "expected {}, found {} at column {}", what, here(), column());
    return std::string(text_.substr(begin, at_ - begin));
  }

  PipelineStep step() {
    skip_blanks();
    const std::size_t start = column();
    const std::string called = name("a pass name");
    const Pass& pass = find(called, start);
    std::map<std::string, std::string> given;
    if (accept('{') && !accept('}')) {
      do {
        skip_blanks();
        const std::size_t option_column = column();
        const std::string key = name("an option name");
        expect('=', "'='");
        const bool is_new = given.emplace(key, value()).second;
        require(!holds_equals(), "the value of option '{}' holds a '=' at column {}: put the whole value into single quotes, "
                "{}='...'", key, column(), key);
        require(is_new, "option '{}' is given twice, again at column {}", key, option_column);
      } while (accept(','));
      expect('}', "',' or '}'");
    }
    return in_context(
        [&] { return fmt::format("column {}", start); },
        [&] {
          return PipelineStep{&pass, Options(pass.info().name, pass.info().options, given)};
        });
  }

  static const Pass& find(const std::string& name, std::size_t column) {
    std::vector<std::string> names;
    for (const Pass* pass : passes().all()) {
      if (pass->info().name == name) return *pass;
      names.emplace_back(pass->info().name);
    }
    const std::string near = nearest_name(name, names);
    fail("unknown pass '{}' at column {}; {}", name, column,
         near.empty() ? "`onnxpress passes` lists them" : fmt::format("did you mean '{}'?", near));
  }

  std::string value() {
    skip_blanks();
    if (!at_end() && text_[at_] == '\'') return quoted_value();
    const std::size_t begin = at_;
    at_ = std::min(text_.find_first_of(",{}='", at_), text_.size());
    std::string_view raw = text_.substr(begin, at_ - begin);
    const std::size_t last = raw.find_last_not_of(blanks);
    raw = last == std::string_view::npos ? std::string_view() : raw.substr(0, last + 1);
    require(!raw.empty(), "expected a value, found {} at column {}", here(), column());
    return std::string(raw);
  }

  std::string quoted_value() {
    const std::size_t start = column();
    std::string value;
    for (++at_; !at_end(); ++at_) {
      if (text_[at_] == '\'') {
        ++at_;
        if (at_end() || text_[at_] != '\'') return value;
      }
      value += text_[at_];
    }
    fail("the quote opened at column {} is not closed", start);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

constexpr std::pair<std::string_view, std::string_view> preset_table[] = {
    {"lossless", "simplify,fuse"},
};

}  // namespace

std::string quote_option_value(const std::string& value) {
  const bool is_plain = !value.empty() && value.find_first_of(",{}='") == std::string::npos &&
                        blanks.find(value.front()) == std::string_view::npos &&
                        blanks.find(value.back()) == std::string_view::npos;
  if (is_plain) return value;
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\'') quoted += '\'';
    quoted += c;
  }
  return quoted + '\'';
}

Pipeline Pipeline::parse(std::string_view text) {
  return in_context([] { return "pipeline"; }, [&] { return PipelineParser(text).parse(); });
}

std::string Pipeline::to_text() const {
  std::string text;
  for (const PipelineStep& step : steps) {
    if (!text.empty()) text += ',';
    text += to_text(step);
  }
  return text;
}

std::string Pipeline::to_text(const PipelineStep& step) {
  const std::string options = step.options.to_text();
  std::string text(step.pass->info().name);
  return options.empty() ? text : fmt::format("{}{{{}}}", text, options);
}

bool trains(const PipelineStep& step) {
  const Needs needs = step.pass->needs(step.options);
  return needs == Needs::training || needs == Needs::teacher;
}

bool Pipeline::needs(Needs what) const {
  return std::ranges::any_of(
      steps, [&](const PipelineStep& step) { return step.pass->needs(step.options) == what; });
}

Effect Pipeline::effect() const {
  Effect weakest = Effect::exact;
  for (const PipelineStep& step : steps) weakest = std::max(weakest, step.pass->info().effect);
  return weakest;
}

Pipeline preset(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& entry : preset_table) {
    if (entry.first == name)
      return in_context([&] { return fmt::format("preset '{}'", name); },
                        [&] { return Pipeline::parse(entry.second); });
    names.emplace_back(entry.first);
  }
  const std::string near = nearest_name(name, names);
  fail("unknown preset '{}'; {}", name,
       near.empty() ? fmt::format("there is {}", fmt::join(names, ", "))
                    : fmt::format("did you mean '{}'?", near));
}

std::vector<std::pair<std::string, std::string>> presets() {
  return {std::begin(preset_table), std::end(preset_table)};
}

}  // namespace onnxpress
