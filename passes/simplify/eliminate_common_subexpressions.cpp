// Computes once what several nodes compute: same operator, attributes and inputs.
//
// In each graph the first node stays. A body's node goes when the graph around it has computed the
// same before. Two graph outputs stay two values, each under its own name.
#include <unordered_map>
#include <unordered_set>

#include "graph/rewrite/patch.h"
#include "passes/core/registry.h"
#include "passes/simplify/expression_key.h"
#include "passes/simplify/file_bytes.h"

namespace onnxpress {
namespace {

constexpr std::string_view pass_name = "eliminate_common_subexpressions";

class Merger {
 public:
  Merger(const Model& model, std::vector<NearMiss>* near_misses)
      : model_(model), near_misses_(near_misses) {}

  std::int64_t merged() const { return merged_; }

  void run(Graph& graph) {
    scopes_.emplace_back();
    Patch patch(graph);
    for (Node* node : graph.nodes()) {
      for (Graph* nested : node->subgraphs()) run(*nested);
      if (is_deterministic(model_, *node)) visit(node, patch);
    }
    if (!patch.empty()) patch.apply();
    rename(graph);
    scopes_.pop_back();
  }

 private:
  void visit(Node* node, Patch& patch) {
    std::string key = expression_key(*node, [this](const Value* value) {
      const auto found = canonical_.find(value);
      return found == canonical_.end() ? value : found->second;
    });
    Node* first = find(key);
    if (!first) {
      scopes_.back().emplace(std::move(key), node);
      return;
    }
    if (!equal_attribute_tensors(*first, *node)) return;
    if (const std::optional<std::string> reason = refusal(*first, *node)) {
      if (near_misses_)
        near_misses_->push_back({std::string(pass_name), node->describe(), *reason});
      return;
    }
    for (std::size_t i = 0; i < node->output_count(); ++i) {
      if (!node->output(i)) continue;
      if (node->output(i)->is_output())
        takes_name_.insert(first->output(i));
      else
        shorten(first->output(i), *node->output(i));
      canonical_[node->output(i)] = first->output(i);
      patch.replace(node->output(i), first->output(i));
    }
    patch.remove(node);
    ++merged_;
  }

  // Readers of `other` will name `kept`: under the shorter of the two names, the file cannot grow.
  void shorten(Value* kept, const Value& other) {
    if (&kept->graph() != &other.graph() || kept->is_output()) return;
    std::string& name = shorter_names_.try_emplace(kept, kept->name()).first->second;
    if (other.name().size() < name.size()) name = other.name();
  }

  void rename(Graph& graph) {
    for (const Node* node : graph.nodes())
      for (Value* output : node->outputs())
        if (const auto found = shorter_names_.find(output);
            found != shorter_names_.end() && !output->is_output())
          graph.rename(output, found->second);
  }

  Node* find(const std::string& key) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto found = scope->find(key); found != scope->end()) return found->second;
    return nullptr;
  }

  std::optional<std::string> refusal(const Node& first, const Node& node) const {
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      const Value* output = node.output(i);
      if (!output) continue;
      const Value* other = first.output(i);
      if (!compatible(output->type, other->type))
        return fmt::format("'{}' is declared {}, but '{}', the same, {}", output->name(),
                           to_string(output->type), other->name(), to_string(other->type));
      if (&other->graph() != &output->graph() && naming_grows(*output, *other))
        return fmt::format("its readers would name '{}' instead: the file would grow",
                           other->name());
      if (!output->is_output()) continue;
      const bool listed_here = std::ranges::all_of(
          output->output_of(), [&](const Graph* graph) { return graph == &node.graph(); });
      if (!listed_here || &other->graph() != &output->graph() || other->is_output() ||
          takes_name_.contains(other))
        return fmt::format("its output '{}' is a graph output, and so would be '{}', the same",
                           output->name(), other->name());
    }
    return std::nullopt;
  }

  const Model& model_;
  std::vector<NearMiss>* near_misses_;
  std::vector<std::unordered_map<std::string, Node*>> scopes_;  // outermost first
  std::unordered_map<const Value*, const Value*> canonical_;
  std::unordered_set<const Value*> takes_name_;  // become graph outputs when patches apply
  std::unordered_map<const Value*, std::string> shorter_names_;
  std::int64_t merged_ = 0;
};

class EliminateCommonSubexpressions : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = pass_name,
      .summary = "computes once what several nodes compute from the same inputs",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 60};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    Merger merger(model, context.near_misses);
    merger.run(model.graph);
    for (const auto& function : model.functions) merger.run(function->body);
    return {.changed = merger.merged() > 0, .counts = {{"nodes", merger.merged()}}};
  }
};

}  // namespace

PASS(eliminate_common_subexpressions) {
  registry.add(std::make_unique<EliminateCommonSubexpressions>());
}

}  // namespace onnxpress
