#include <algorithm>

#include "graph/rewrite/pattern.h"

namespace onnxpress {
namespace {

std::string describe_source(const Value& value) {
  if (value.producer()) return value.producer()->describe();
  if (value.is_constant()) return fmt::format("constant '{}'", value.name());
  return fmt::format("graph input '{}'", value.name());
}

}  // namespace

Pattern Pattern::any(std::string name) {
  Pattern pattern;
  pattern.kind_ = Kind::any;
  pattern.name_ = std::move(name);
  return pattern;
}

Pattern Pattern::constant(std::string name) {
  Pattern pattern = any(std::move(name));
  pattern.kind_ = Kind::constant;
  return pattern;
}

Pattern Pattern::op(std::string_view op_types, std::string name, std::vector<Pattern> inputs) {
  Pattern pattern = any(std::move(name));
  pattern.kind_ = Kind::op;
  pattern.inputs_ = std::move(inputs);
  for (std::size_t begin = 0; begin <= op_types.size();) {
    const std::size_t end = std::min(op_types.find('|', begin), op_types.size());
    const std::string_view full = op_types.substr(begin, end - begin);
    const std::size_t dot = full.rfind('.');
    const std::string_view domain = dot == std::string_view::npos ? "" : full.substr(0, dot);
    const std::string_view type = dot == std::string_view::npos ? full : full.substr(dot + 1);
    pattern.op_types_.emplace_back(domain == "ai.onnx" ? "" : domain, type);
    begin = end + 1;
  }
  return pattern;
}

Pattern Pattern::commutative() && {
  commutative_ = true;
  return std::move(*this);
}

Pattern Pattern::from_output(std::size_t output) && {
  output_ = output;
  return std::move(*this);
}

Node* Match::node(std::string_view name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : found->second;
}

Value* Match::value(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : found->second;
}

const Tensor& Match::constant(std::string_view name) const {
  const Value* value = this->value(name);
  const Tensor* tensor = value ? value->constant() : nullptr;
  require(tensor != nullptr, "no constant is bound to '{}'", name);
  return *tensor;
}

// Backtracks over a list of goals: values that must match patterns.
class Matcher {
 public:
  Matcher(Node* root, bool explain) : root_(root), explain_(explain) {}

  std::optional<Match> run(const Pattern& pattern) {
    if (pattern.kind_ != Pattern::Kind::op || !fits(pattern, *root_)) return std::nullopt;
    explain_ = explain_ && is_near(pattern);
    State state;
    std::vector<Goal> goals;
    if (enter(pattern, root_, root_->output(pattern.output_), state) &&
        expand(pattern, root_, state, goals))
      return std::move(found_);
    return std::nullopt;
  }
  std::string take_reason() { return std::move(reason_); }

 private:
  struct Goal {
    const Pattern* pattern;
    const Node* reader;
    std::size_t index;
  };
  struct State {
    Match match;
    std::vector<Node*> nodes;  // root first
  };

  static bool fits(const Pattern& pattern, const Node& node) {
    return std::ranges::any_of(pattern.op_types_, [&](const auto& wanted) {
      return node.is(wanted.second, wanted.first);
    });
  }

  // At least one of the root's input operators is there, or none is asked for.
  bool is_near(const Pattern& pattern) const {
    bool has_operators = false;
    for (std::size_t i = 0; i < pattern.inputs_.size(); ++i) {
      const Pattern& child = pattern.inputs_[i];
      if (child.kind_ != Pattern::Kind::op) continue;
      has_operators = true;
      const auto fits_at = [&](std::size_t index) {
        const Value* value = root_->input(index);
        return value && value->producer() && fits(child, *value->producer());
      };
      if (fits_at(i) || (pattern.commutative_ && i < 2 && fits_at(1 - i))) return true;
    }
    return !has_operators;
  }

  // Remembers why the attempt failed; the one that bound most nodes is told, of equals the first.
  template <class Describe>
  bool miss(const State& state, Describe&& describe) {
    if (explain_ && (reason_.empty() || state.nodes.size() > furthest_)) {
      furthest_ = state.nodes.size();
      reason_ = describe();
    }
    return false;
  }

  std::string describe(const Goal& goal) const {
    const Value* value = goal.reader->input(goal.index);
    std::string text = value ? fmt::format("input {} '{}'", goal.index, value->name())
                             : fmt::format("input {}", goal.index);
    return goal.reader == root_ ? text : fmt::format("{} of {}", text, goal.reader->describe());
  }

  static std::string expected(const Pattern& pattern) {
    std::string text;
    for (std::size_t i = 0; i < pattern.op_types_.size(); ++i) {
      const auto& [domain, type] = pattern.op_types_[i];
      if (i > 0) text += i + 1 == pattern.op_types_.size() ? " or " : ", ";
      text += domain.empty() ? type : domain + '.' + type;
    }
    return text;
  }

  bool bind(const Pattern& pattern, Value* value, State& state) {
    if (pattern.name_.empty() || !value) return true;
    const auto [bound, is_new] = state.match.values_.emplace(pattern.name_, value);
    return is_new || bound->second == value || miss(state, [&, known = bound->second] {
             return fmt::format("'{}' and '{}' are not the same value", known->name(),
                                value->name());
           });
  }

  // Binds a node that fits `pattern`, read through `value`.
  bool enter(const Pattern& pattern, Node* node, Value* value, State& state) {
    if (!bind(pattern, value, state)) return false;
    if (!pattern.name_.empty()) state.match.nodes_.emplace(pattern.name_, node);
    if (std::ranges::find(state.nodes, node) == state.nodes.end()) state.nodes.push_back(node);
    return true;
  }

  // Replaces the goal just met by those of the pattern's inputs.
  bool expand(const Pattern& pattern, const Node* node, State& state,
              const std::vector<Goal>& rest) {
    const auto attempt = [&](bool swapped, State attempted) {
      std::vector<Goal> goals = rest;
      for (std::size_t i = pattern.inputs_.size(); i-- > 0;)
        goals.push_back({&pattern.inputs_[i], node, swapped && i < 2 ? 1 - i : i});
      return solve(std::move(goals), std::move(attempted));
    };
    if (attempt(false, state)) return true;
    return pattern.commutative_ && attempt(true, state);
  }

  bool solve(std::vector<Goal> goals, State state) {
    if (goals.empty()) return accept(state);
    const Goal goal = goals.back();
    goals.pop_back();
    const Pattern& pattern = *goal.pattern;
    Value* value = goal.reader->input(goal.index);
    if (pattern.kind_ == Pattern::Kind::any)
      return bind(pattern, value, state) && solve(std::move(goals), std::move(state));
    if (!value)
      return miss(state, [&] {
        return fmt::format("{} is omitted, expected {}", describe(goal),
                           pattern.kind_ == Pattern::Kind::op ? expected(pattern) : "a constant");
      });
    if (pattern.kind_ == Pattern::Kind::constant) {
      if (!value->constant())
        return miss(state, [&] {
          return fmt::format("{} is {}", describe(goal),
                             value->is_constant()   ? "a sparse constant"
                             : value->initializer() ? "a constant that callers can override"
                                                    : "not a constant");
        });
      return bind(pattern, value, state) && solve(std::move(goals), std::move(state));
    }
    Node* node = value->producer();
    if (!node || !fits(pattern, *node))
      return miss(state, [&] {
        return fmt::format("{}: expected {}, found {}", describe(goal), expected(pattern),
                           describe_source(*value));
      });
    if (&node->graph() != &root_->graph())
      return miss(state, [&] {
        return fmt::format("{} is made outside the graph, by {}", describe(goal), node->describe());
      });
    if (value->output_index() != pattern.output_)
      return miss(state, [&] {
        return fmt::format("{}: expected output {} of {}, found output {}", describe(goal),
                           pattern.output_, node->describe(), value->output_index());
      });
    return enter(pattern, node, value, state) && expand(pattern, node, state, goals);
  }

  // All goals are met: interior values must be read by matched nodes only.
  bool accept(State& state) {
    for (Node* node : state.nodes) {
      if (node == root_) continue;
      for (const Value* output : node->outputs()) {
        if (!output) continue;
        const auto described = [&] {
          return fmt::format("'{}' (output of {})", output->name(), node->describe());
        };
        if (output->is_output())
          return miss(state, [&] { return described() + " is a graph output"; });
        for (const Use& use : output->uses())
          if (std::ranges::find(state.nodes, use.node) == state.nodes.end())
            return miss(state, [&] {
              return fmt::format("{} has another reader: {}", described(), use.node->describe());
            });
      }
    }
    state.match.root = root_;
    state.match.interior.assign(state.nodes.begin() + 1, state.nodes.end());
    found_ = std::move(state.match);
    return true;
  }

  Node* root_;
  bool explain_;
  std::size_t furthest_ = 0;
  std::string reason_;
  std::optional<Match> found_;
};

std::optional<Match> match(const Pattern& pattern, Node* root, std::string* reason) {
  Matcher matcher(root, reason != nullptr);
  std::optional<Match> found = matcher.run(pattern);
  if (reason) *reason = found ? std::string() : matcher.take_reason();
  return found;
}

}  // namespace onnxpress
