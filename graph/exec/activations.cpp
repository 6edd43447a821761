// Peak memory of activations, from types alone.
#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "graph/exec/costs.h"

namespace onnxpress {
namespace {

bool is_view(const Node& node) {
  static constexpr std::array<std::string_view, 6> names{"Reshape", "Identity",  "Flatten",
                                                         "Squeeze", "Unsqueeze", "Dropout"};
  return node.domain().empty() && std::ranges::find(names, node.op_type()) != names.end();
}

// Walks one graph in order; subgraphs where their node runs.
class Liveness {
 public:
  explicit Liveness(const TypedModel& typed) : types_(typed.types()) {}

  ActivationMemory run(const Graph& graph) {
    walk(graph);
    return result_;
  }

 private:
  // Values whose memory `value` uses: itself, or what a view looks at.
  const Value* root(const Value* value) const {
    for (auto found = views_.find(value); found != views_.end(); found = views_.find(value))
      value = found->second;
    return value;
  }

  // Bytes, 0 where not known.
  std::int64_t bytes(const Value& value) {
    const Type& type = types_.type(&value);
    const auto dims = type.is_tensor() && type.shape ? concrete(*type.shape) : std::nullopt;
    if (!dims || type.elem == DType::undefined || type.elem == DType::string) {
      result_.unknown_values += unknown_.insert(&value).second;
      return 0;
    }
    return static_cast<std::int64_t>(
        packed_bytes(type.elem, static_cast<std::size_t>(element_count(*dims))));
  }

  bool is_weight(const Value* value) const {
    return value->initializer() != nullptr || weights_.contains(value);
  }

  bool reads_weights_only(const Node& node) const {
    if (!node.subgraphs().empty()) return false;
    return std::ranges::all_of(
        node.inputs(), [&](const Value* input) { return input == nullptr || is_weight(input); });
  }

  void allocate(const Value* value) {
    if (is_weight(value) || !alive_.insert(value).second) return;
    current_ += bytes(*value);
  }
  void release(const Value* value) {
    if (alive_.erase(value) > 0) current_ -= bytes(*value);
  }

  // By root, the last node of `graph` that reads it, directly or from a subgraph.
  std::unordered_map<const Value*, const Node*> last_readers(const Graph& graph) const {
    std::unordered_map<const Value*, const Node*> last;
    for (const Node* node : graph.nodes()) {
      for (const Value* input : node->inputs())
        if (input) last[root(input)] = node;
      for (const Value* captured : node->captured()) last[root(captured)] = node;
    }
    return last;
  }

  void walk(const Graph& graph) {
    for (const Node* node : graph.nodes()) {
      if (node->is("Constant") || (node->input_count() > 0 && reads_weights_only(*node))) {
        for (const Value* output : node->outputs())
          if (output) weights_.insert(output);
      } else if (is_view(*node) && node->input(0) && node->output()) {
        views_[node->output()] = node->input(0);
      }
    }
    const auto last = last_readers(graph);
    std::unordered_set<const Value*> kept;
    for (const Value* output : graph.outputs()) kept.insert(root(output));
    for (const Value* input : graph.inputs()) allocate(input);
    for (const Node* node : graph.nodes()) {
      for (const Value* output : node->outputs())
        if (output && !views_.contains(output)) allocate(output);
      for (const Graph* nested : node->subgraphs()) nest(*nested);
      if (current_ > result_.peak_bytes || !result_.at) {
        result_.peak_bytes = std::max(result_.peak_bytes, current_);
        result_.at = node;
      }
      const auto done = [&](const Value* value) {
        const Value* owner = root(value);
        const auto reader = last.find(owner);
        if (!kept.contains(owner) && (reader == last.end() || reader->second == node) &&
            &owner->graph() == &graph)
          release(owner);
      };
      for (const Value* input : node->inputs())
        if (input) done(input);
      for (const Value* captured : node->captured()) done(captured);
      for (const Value* output : node->outputs())
        if (output) done(output);
    }
  }

  // What the subgraph holds is gone when it has run, for the next one of the node.
  void nest(const Graph& graph) {
    const std::unordered_set<const Value*> outside = alive_;
    const std::int64_t before = current_;
    walk(graph);
    alive_ = outside;
    current_ = before;
  }

  const TypeInference& types_;
  std::unordered_map<const Value*, const Value*> views_;
  std::unordered_set<const Value*> weights_, alive_, unknown_;
  std::int64_t current_ = 0;
  ActivationMemory result_;
};

}  // namespace

ActivationMemory activation_memory(const TypedModel& typed) {
  return Liveness(typed).run(typed.model().graph);
}

}  // namespace onnxpress
