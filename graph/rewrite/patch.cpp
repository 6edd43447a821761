// Building and applying; the checks are in patch_plan.cpp.
#include "graph/rewrite/patch.h"

#include <algorithm>

#include "graph/rewrite/patch_plan.h"

namespace onnxpress {
namespace {

// What is known of a value that stands where one of type `old` stood: `found`, filled in from
// `old`.
Type merged(const Type& found, const Type& old) {
  if (found.kind == Type::Kind::unknown) return old;
  if (!found.is_tensor() || !old.is_tensor()) return found;
  Type type = found;
  if (type.elem == DType::undefined) type.elem = old.elem;
  if (!type.shape) {
    type.shape = old.shape;
  } else if (old.shape && old.shape->size() == type.shape->size()) {
    for (std::size_t i = 0; i < type.shape->size(); ++i)
      if (!(*type.shape)[i].is_known()) (*type.shape)[i] = (*old.shape)[i];
  }
  return type;
}

// Makes a node that goes read nothing, so that moving readers does not concern it.
void detach(Node* node) {
  Graph& graph = node->graph();
  for (std::size_t i = node->input_count(); i-- > 0;) graph.set_node_input(node, i, nullptr);
  std::vector<std::string> keys;
  for (const auto& [key, attribute] : node->attributes())
    if (!attribute.subgraphs().empty()) keys.push_back(key);
  for (const std::string& key : keys) graph.remove_attribute(node, key);
}

}  // namespace

Patch::Ref Patch::constant(std::string hint, Tensor tensor) {
  constants_.emplace_back(std::move(hint), std::move(tensor));
  return {Ref::Kind::constant, constants_.size() - 1, 0};
}

Patch::Ref Patch::node(NodeTemplate node) {
  nodes_.push_back(std::move(node));
  return {Ref::Kind::output, nodes_.size() - 1, 0};
}

Patch::Ref Patch::output(Ref node, std::size_t index) const {
  require(node.kind_ == Ref::Kind::output && node.index_ < nodes_.size() &&
              index < nodes_[node.index_].outputs,
          "patch: output {} of a node that has none of that index", index);
  return {Ref::Kind::output, node.index_, index};
}

void Patch::replace(Value* old, Ref replacement) { replacements_.emplace_back(old, replacement); }

void Patch::replace_input(Node* node, std::size_t index, Ref replacement) {
  input_replacements_.emplace_back(Use{node, index}, replacement);
}

void Patch::set_constant(Value* constant, Tensor tensor) {
  constant_changes_.emplace_back(constant, std::move(tensor));
}

void Patch::remove(Node* node) { removed_.push_back(node); }

void Patch::remove_if_unread(Node* node) { removed_if_unread_.push_back(node); }

bool Patch::empty() const {
  return nodes_.empty() && replacements_.empty() && input_replacements_.empty() &&
         constant_changes_.empty() && removed_.empty();
}

Value* Patch::value(Ref ref) const {
  switch (ref.kind_) {
    case Ref::Kind::omitted:
      return nullptr;
    case Ref::Kind::existing:
      return ref.value_;
    case Ref::Kind::constant:
      return new_constants_.at(ref.index_);
    case Ref::Kind::output:
      return new_nodes_.at(ref.index_)->output(ref.output_);
  }
  return nullptr;
}

void Patch::drop_unread_constants(const std::vector<Value*>& candidates) {
  for (Value* value : candidates) {
    if (!value || !value->is_constant() || !value->is_unused()) continue;
    std::replace(new_constants_.begin(), new_constants_.end(), value, static_cast<Value*>(nullptr));
    value->graph().remove_initializer(value);
  }
}

Patch::Applied Patch::apply() {
  PatchPlan plan(*this);

  std::vector<Value*> candidates;  // constants that may lose their last reader, each once
  const auto loses_reader = [&](Value* value) {
    if (value && value->initializer() &&
        std::find(candidates.begin(), candidates.end(), value) == candidates.end())
      candidates.push_back(value);
  };
  for (const auto& [old, replacement] : replacements_) loses_reader(old);
  for (const auto& [use, replacement] : input_replacements_)
    loses_reader(use.node->input(use.index));
  for (const Node* node : plan.removed) {
    for (Value* input : node->inputs()) loses_reader(input);
    for (Value* captured : node->captured()) loses_reader(captured);
  }

  for (Node* node : plan.removed) detach(node);
  for (auto& [constant, tensor] : constant_changes_)
    constant->graph().set_initializer(constant, std::move(tensor));
  for (auto& [hint, tensor] : constants_) {
    const std::string name = graph_->unique_name(hint.empty() ? "constant" : hint);
    new_constants_.push_back(graph_->add_initializer(name, std::move(tensor)));
    candidates.push_back(new_constants_.back());
  }
  // Inputs of new nodes, and inputs replaced one by one, are set only after readers have moved:
  // what they name is the value itself, replaced or not.
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    NodeTemplate& node = nodes_[i];
    Node* made = graph_->add_node({.op_type = std::move(node.op_type),
                                   .domain = std::move(node.domain),
                                   .name = plan.node_names[i],
                                   .outputs = std::vector<std::string>(node.outputs),
                                   .omitted_outputs = node.omitted_outputs,
                                   .attributes = std::move(node.attributes)},
                                  plan.before);
    for (std::size_t j = 0; j < node.outputs; ++j)
      if (Value* output = made->output(j)) output->type = plan.types[i][j];
    new_nodes_.push_back(made);
  }
  for (const auto& [old, replacement] : replacements_) {
    Value* now = value(replacement);
    if (replacement.kind_ == Ref::Kind::output) {
      now->type = merged(now->type, old->type);
      now->type_in_file = old->type_in_file;
    }
    graph_->replace_uses(old, now);
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    for (std::size_t j = 0; j < nodes_[i].inputs.size(); ++j)
      if (Value* input = value(nodes_[i].inputs[j]))
        graph_->set_node_input(new_nodes_[i], j, input);
  for (const auto& [use, replacement] : input_replacements_)
    use.node->graph().set_node_input(use.node, use.index, value(replacement));

  Applied applied{.created = new_nodes_, .constants = {}, .removed = {}};
  for (Node* node : plan.removed) {
    applied.removed.push_back(node);
    graph_->remove(node);
  }
  drop_unread_constants(candidates);
  for (Value* constant : new_constants_)
    if (constant) applied.constants.push_back(constant);
  for (const auto& [constant, tensor] : constant_changes_) applied.constants.push_back(constant);
  if (plan.sort_after) graph_->sort();
  return applied;
}

}  // namespace onnxpress
