#include "passes/core/selector.h"

#include <algorithm>
#include <optional>
#include <set>

namespace onnxpress {
namespace {

struct ClassMatch {
  bool matches;
  std::size_t end;  // past the ']'
};

// The class that opens at glob[at] == '['; nothing when it is not closed (then '[' is a character).
std::optional<ClassMatch> match_class(std::string_view glob, std::size_t at, char c) {
  std::size_t i = at + 1;
  const bool negated = i < glob.size() && glob[i] == '!';
  if (negated) ++i;
  bool found = false;
  for (bool first = true; i < glob.size() && (first || glob[i] != ']'); first = false) {
    if (glob[i] == '\\' && i + 1 < glob.size()) ++i;
    const char low = glob[i++];
    char high = low;
    if (i + 1 < glob.size() && glob[i] == '-' && glob[i + 1] != ']') {
      high = glob[i + 1];
      i += 2;
    }
    found = found || (low <= c && c <= high);
  }
  if (i >= glob.size()) return std::nullopt;
  return ClassMatch{found != negated, i + 1};
}

// Where the glob goes on after one character matched; nothing when it does not match.
std::optional<std::size_t> match_one(std::string_view glob, std::size_t at, char c) {
  if (glob[at] == '?') return at + 1;
  if (glob[at] == '[')
    if (const auto matched = match_class(glob, at, c))
      return matched->matches ? std::optional(matched->end) : std::nullopt;
  if (glob[at] == '\\' && at + 1 < glob.size()) ++at;
  return glob[at] == c ? std::optional(at + 1) : std::nullopt;
}

// What a node goes by: its name, else that of its first output.
std::string_view node_name(const Node& node) {
  if (!node.name.empty()) return node.name;
  for (const Value* output : node.outputs())
    if (output) return output->name();
  return {};
}

std::string full_type(const Node& node) {
  return node.domain().empty() ? node.op_type() : node.domain() + '.' + node.op_type();
}

bool matches_type(std::string_view glob, const Node& node) {
  return glob_match(glob, node.op_type()) ||
         (!node.domain().empty() && glob_match(glob, full_type(node)));
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

}  // namespace

// Linear in practice: only the last '*' is ever tried again.
bool glob_match(std::string_view glob, std::string_view text) {
  std::size_t g = 0;
  std::size_t t = 0;
  std::optional<std::size_t> star;
  std::size_t star_text = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_text = t;
      continue;
    }
    const auto next = g < glob.size() ? match_one(glob, g, text[t]) : std::nullopt;
    if (next) {
      g = *next;
      ++t;
    } else if (star) {
      g = *star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

Selector::Selector(std::string_view text) {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    std::string_view part = trimmed(text.substr(begin, end - begin));
    begin = end + 1;
    if (part.empty()) continue;
    Term term{.over = Term::Over::any, .exclude = part.starts_with('!'), .glob = {}};
    if (term.exclude) part.remove_prefix(1);
    constexpr std::pair<std::string_view, Term::Over> prefixes[] = {
        {"name:", Term::Over::name}, {"op:", Term::Over::op}, {"tensor:", Term::Over::tensor}};
    for (const auto& [prefix, over] : prefixes) {
      if (!part.starts_with(prefix)) continue;
      term.over = over;
      part.remove_prefix(prefix.size());
      break;
    }
    require(!part.empty(), "selector '{}' has an empty glob", text);
    term.glob = part;
    terms_.push_back(std::move(term));
  }
}

bool Selector::matches(const Term& term, const Node& node, const Value* tensor) const {
  using Over = Term::Over;
  const bool any = term.over == Over::any;
  return ((any || term.over == Over::name) && glob_match(term.glob, node_name(node))) ||
         ((any || term.over == Over::op) && matches_type(term.glob, node)) ||
         ((any || term.over == Over::tensor) && tensor && glob_match(term.glob, tensor->name()));
}

bool Selector::selects(const Node& node, const Value* tensor) const {
  bool included = std::ranges::all_of(terms_, &Term::exclude);
  for (const Term& term : terms_) {
    if (!matches(term, node, tensor)) continue;
    if (term.exclude) return false;
    included = true;
  }
  return included;
}

bool Selector::matches(const Node& node) const { return selects(node, nullptr); }

bool Selector::matches(const Node& node, const Value& tensor) const {
  return selects(node, &tensor);
}

void Selector::require_all_match(const Model& model) const {
  for (const Term& term : terms_) {
    std::set<std::string> candidates;
    bool found = false;
    model.for_each_graph([&](const Graph& graph) {
      const auto note_tensor = [&](const Value* value) {
        if (!value || (term.over != Term::Over::any && term.over != Term::Over::tensor)) return;
        found = found || glob_match(term.glob, value->name());
        candidates.insert(value->name());
      };
      for (const Value* value : graph.inputs()) note_tensor(value);
      for (const Value* value : graph.initializers()) note_tensor(value);
      for (const Node* node : graph.nodes()) {
        for (const Value* value : node->outputs()) note_tensor(value);
        found = found || matches(term, *node, nullptr);
        if (term.over == Term::Over::any || term.over == Term::Over::op)
          candidates.insert(node->op_type());
        if (term.over == Term::Over::any || term.over == Term::Over::name)
          candidates.emplace(node_name(*node));
      }
    });
    if (found) continue;
    const std::string near = nearest_name(term.glob, {candidates.begin(), candidates.end()});
    fail("selector '{}' matches nothing in the model{}", term.glob,
         near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
}

}  // namespace onnxpress
