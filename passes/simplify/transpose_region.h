// The part of a graph that could work on permuted values.
#pragma once

#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "graph/ops/permuted_form.h"

namespace onnxpress {

inline bool is_trivial(const Permutation& p) { return p.empty() || is_identity(p); }

// The values that one Transpose could leave permuted, and the nodes that could follow.
class TransposeRegion {
 public:
  TransposeRegion(Graph& graph, const TypeInference& types) : graph_(graph), types_(types) {}

  void grow(Value* seed, const Permutation& p) {
    visit(seed, p);
    while (!queue_.empty()) {
      Value* value = queue_.front();
      queue_.pop_front();
      if (value->constant()) continue;
      const Permutation known = alternates_.at(value);
      if (Node* producer = value->producer())
        try_node(producer, {true, value->output_index(), known});
      for (const Use& use : std::vector<Use>(value->uses().begin(), value->uses().end()))
        try_node(use.node, {false, use.index, known});
    }
  }

  const Graph& graph() const { return graph_; }
  const std::vector<Value*>& values() const { return values_; }
  // nullptr for values outside.
  const Permutation* alternate(const Value* value) const { return found(alternates_, value); }
  const PermutedForm* form(const Node* node) const { return found(forms_, node); }

  // The node makes the output, or reads the input, permuted as the value is in the region.
  bool makes(const Value& value) const {
    const PermutedForm* made = form(value.producer());
    return made != nullptr && made->outputs[value.output_index()] == alternates_.at(&value);
  }
  bool reads(const Use& use) const {
    const PermutedForm* made = form(use.node);
    return made != nullptr && made->inputs[use.index] == alternates_.at(use.node->input(use.index));
  }

 private:
  template <class K, class T>
  static const T* found(const std::unordered_map<const K*, T>& map, const K* key) {
    const auto at = map.find(key);
    return at == map.end() ? nullptr : &at->second;
  }

  void visit(Value* value, const Permutation& p) {
    if (is_trivial(p) || !alternates_.emplace(value, p).second) return;
    values_.push_back(value);
    // What comes from a graph around this one stays as it is there.
    if (&value->graph() == &graph_) queue_.push_back(value);
  }

  void try_node(Node* node, const PermutedOperand& operand) {
    if (&node->graph() != &graph_ || form(node)) return;
    std::optional<PermutedForm> made = permuted_form(*node, operand, types_);
    if (!made) made = form_beside_transpose(*node, operand);
    if (!made || !fits(*node, *made)) return;
    for (std::size_t i = 0; i < made->inputs.size(); ++i)
      if (node->input(i)) visit(node->input(i), made->inputs[i]);
    for (std::size_t i = 0; i < made->outputs.size(); ++i) visit(node->output(i), made->outputs[i]);
    forms_.emplace(node, std::move(*made));
  }

  // An operator that drops or adds axes leaves open where these were or go: what a Transpose at its
  // other side asks for.
  std::optional<PermutedForm> form_beside_transpose(const Node& node,
                                                    const PermutedOperand& operand) const {
    const auto answer = [&](const PermutedOperand& other) -> std::optional<PermutedForm> {
      std::optional<PermutedForm> made = permuted_form(node, other, types_);
      if (!made) return std::nullopt;
      const auto& side = operand.is_output ? made->outputs : made->inputs;
      if (side[operand.index] != operand.permutation) return std::nullopt;
      return made;
    };
    if (operand.index != 0 || node.output() == nullptr || node.input(0) == nullptr)
      return std::nullopt;
    if (operand.is_output) {
      const Node* before = node.input(0)->producer();
      const auto p = before ? permutation_of(*before, types_) : std::nullopt;
      return p ? answer({false, 0, inverse(*p)}) : std::nullopt;
    }
    for (const Use& use : node.output()->uses())
      if (const auto p = permutation_of(*use.node, types_))
        if (auto made = answer({true, 0, *p})) return made;
    return std::nullopt;
  }

  bool fits(const Node& node, const PermutedForm& made) const {
    const auto agrees = [&](const Value* value, const Permutation& p) {
      const Permutation* known = alternate(value);
      return known == nullptr || is_trivial(p) || *known == p;
    };
    for (std::size_t i = 0; i < made.inputs.size(); ++i) {
      const Value* input = node.input(i);
      if (input == nullptr) continue;
      if (!agrees(input, made.inputs[i])) return false;
      const Tensor* constant = input->constant();
      if (constant && !is_trivial(made.inputs[i]) && bits(constant->dtype()) == 0) return false;
    }
    for (std::size_t i = 0; i < made.outputs.size(); ++i)
      if (!agrees(node.output(i), made.outputs[i])) return false;
    return true;
  }

  Graph& graph_;
  const TypeInference& types_;
  std::unordered_map<const Value*, Permutation> alternates_;
  std::unordered_map<const Node*, PermutedForm> forms_;
  std::vector<Value*> values_;  // in the order they were found
  std::deque<Value*> queue_;
};

}  // namespace onnxpress
