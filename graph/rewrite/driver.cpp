// The greedy driver: sweeps over all graphs until a sweep changes nothing.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "graph/rewrite/pattern.h"

namespace onnxpress {

class Driver {
 public:
  Driver(const Model& model, const std::vector<Rule>& rules, std::int64_t limit)
      : rules_(rules), limit_(limit), types_(model) {}

  RuleCounts run(Model& model) {
    for (const Rule& rule : rules_) counts_.applied[rule.name] = 0;
    bool changed = true;
    while (changed && !counts_.limit_reached) {
      types_.refresh();
      declined_.clear();
      changed = sweep(model.graph);
      for (const auto& function : model.functions) changed = sweep(function->body) || changed;
    }
    if (!counts_.limit_reached) {
      list_misses(model.graph);
      for (const auto& function : model.functions) list_misses(function->body);
    }
    return std::move(counts_);
  }

 private:
  bool sweep(Graph& graph) {
    bool changed = false;
    std::vector<Node*> nodes = graph.nodes();
    std::unordered_map<const void*, std::size_t> positions;
    for (std::size_t i = 0; i < nodes.size(); ++i) positions.emplace(nodes[i], i);
    for (std::size_t i = 0; i < nodes.size() && !counts_.limit_reached; ++i) {
      if (!nodes[i]) continue;
      for (Graph* nested : nodes[i]->subgraphs()) changed = sweep(*nested) || changed;
      for (const Rule& rule : rules_) {
        const std::optional<std::vector<const void*>> removed = attempt(rule, nodes[i]);
        if (!removed) continue;
        changed = true;
        // A node made since may live where a removed one did: each address counts once.
        for (const void* gone : *removed)
          if (const auto found = positions.find(gone); found != positions.end()) {
            nodes[found->second] = nullptr;
            positions.erase(found);
          }
        break;
      }
    }
    return changed;
  }

  // A node whose results nobody reads is left to remove_unused().
  static bool is_dead(const Node& node) {
    const std::vector<Value*> outputs = node.outputs();
    const auto unread = [](const Value* output) { return !output || output->is_unused(); };
    return !outputs.empty() && std::all_of(outputs.begin(), outputs.end(), unread);
  }

  // The nodes removed when the rule was applied at `root`.
  std::optional<std::vector<const void*>> attempt(const Rule& rule, Node* root) {
    if (is_dead(*root)) return std::nullopt;
    std::optional<Match> found = match(rule.pattern, root);
    if (!found) return std::nullopt;
    found->types_ = &types_;
    const auto describe = [&, subject = root->describe()] {
      return fmt::format("rule '{}' at {}", rule.name, subject);
    };
    return in_context(describe, [&]() -> std::optional<std::vector<const void*>> {
      if (rule.when && rule.when(*found)) return std::nullopt;
      Patch patch(root->graph());
      rule.replace(*found, patch);
      if (patch.declined()) {
        declined_[{&rule, root}] = *patch.declined();
        return std::nullopt;
      }
      if (patch.empty()) return std::nullopt;
      counts_.limit_reached = total_ == limit_;
      if (counts_.limit_reached) return std::nullopt;
      patch.remove_if_unread(root);
      for (Node* node : found->interior) patch.remove_if_unread(node);
      patch.remove_unread_producers();
      Patch::Applied applied = patch.apply();
      types_.note(applied);
      ++counts_.applied[rule.name];
      ++total_;
      return std::move(applied.removed);
    });
  }

  void list_misses(const Graph& graph) {
    for (Node* node : graph.nodes()) {
      for (const Graph* nested : node->subgraphs()) list_misses(*nested);
      for (const Rule& rule : rules_) {
        std::string reason;
        std::optional<Match> found = match(rule.pattern, node, &reason);
        if (found) found->types_ = &types_;
        if (found && rule.when) reason = rule.when(*found).value_or("");
        if (const auto declined = declined_.find({&rule, node});
            found && reason.empty() && declined != declined_.end())
          reason = declined->second;
        if (!reason.empty()) counts_.misses.push_back({rule.name, node->describe(), reason});
      }
    }
  }

  const std::vector<Rule>& rules_;
  std::int64_t limit_;
  std::int64_t total_ = 0;
  LiveTypes types_;
  RuleCounts counts_;
  // Of the sweep that is under way, or of the last: why patches that rules began change nothing.
  std::map<std::pair<const Rule*, const Node*>, std::string> declined_;
};

const TypeInference& Match::types() const {
  require(types_ != nullptr, "types are only known in a match that apply_rules made");
  return types_->get();
}

RuleCounts apply_rules(Model& model, const std::vector<Rule>& rules, std::int64_t limit) {
  return Driver(model, rules, limit).run(model);
}

}  // namespace onnxpress
