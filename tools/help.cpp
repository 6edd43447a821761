// Help texts, the same with every version of the option parser.
#include <algorithm>
#include <utility>

#include "tools/verb.h"

namespace onnxpress {

namespace {

constexpr std::size_t width = 80;
constexpr std::size_t indent = 28;

// `text` in lines of at most `width`, all but the first indented by `margin`.
std::string wrapped(const std::string& text, std::size_t margin = indent) {
  std::string result;
  std::size_t column = margin;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (column > margin && column + 1 + word.size() > width) {
      result += "\n" + std::string(margin, ' ');
      column = margin;
    } else if (column > margin) {
      result += ' ';
      ++column;
    }
    result += word;
    column += word.size();
    begin = end + 1;
  }
  return result;
}

std::string entry(const std::string& left, const std::string& description) {
  std::string line = "  " + left;
  if (line.size() + 2 > indent)
    line += "\n" + std::string(indent, ' ');
  else
    line.resize(indent, ' ');
  return line + wrapped(description) + "\n";
}

std::string option_names(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_snames()) names += (names.empty() ? "-" : ", -") + name;
  for (const std::string& name : option.get_lnames())
    names += (names.empty() ? "--" : ", --") + name;
  if (option.get_items_expected_max() > 0) {
    const std::string type = option.get_type_name();
    names += option.get_items_expected_min() == 0 ? "[=" + type + "]" : " " + type;
  }
  return names;
}

// Options by group, groups in order of declaration.
std::string option_groups(const CLI::App& app, const std::string& title) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional() || option->get_group().empty()) continue;
    const std::string group = option->get_group() == "Options" || option->get_group() == "OPTIONS"
                                  ? title
                                  : option->get_group();
    auto found = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& known) { return known.first == group; });
    if (found == groups.end()) found = groups.insert(found, {group, ""});
    found->second += entry(option_names(*option), option->get_description());
  }
  std::string text;
  for (const auto& [group, entries] : groups) text += "\n" + group + ":\n" + entries;
  return text;
}

}  // namespace

std::string help_text(const CLI::App& app, const std::vector<std::unique_ptr<Verb>>& verbs,
                      const Verb* verb) {
  std::string text;
  if (verb != nullptr) {
    const std::string command = "usage: onnxpress " + verb->name() + " ";
    text = command + wrapped(verb->usage(), command.size()) + "\n\n" + wrapped(verb->summary(), 0) +
           "\n";
    text += option_groups(*app.get_subcommand(verb->name()), "Options");
  } else {
    text =
        "usage: onnxpress VERB ... [options]\n\nMakes ONNX models smaller, and proves what "
        "it cost.\n\nVerbs:\n";
    for (const auto& each : verbs)
      text += entry(each->name() + " " + each->usage(), each->summary());
  }
  text += option_groups(app, "Global options");
  text += "\n" +
          wrapped(
              "MODEL, IN and OUT may be '-': standard input or output. Exit status: 0 done; 1 a "
              "gate was missed or a pass was rolled back; 2 could not be done, nothing is left "
              "or changed.",
              0) +
          "\n";
  return text;
}

}  // namespace onnxpress
