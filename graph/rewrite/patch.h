// A rewrite as a value: built freely, checked as a whole, applied at once.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

// An edit of one graph. Building it changes nothing; apply() checks everything first, so that a
// patch that throws leaves the graph untouched. New nodes read existing values as they are before
// the patch: `replace(x, f)` with f = node(F, {x}) puts F behind x for all other readers.
class Patch {
 public:
  // A value of the graph or one the patch will create.
  class Ref {
   public:
    Ref() = default;  // an omitted optional input
    Ref(Value* value)  // NOLINT: existing values stand for themselves
        : kind_(value ? Kind::existing : Kind::omitted), value_(value) {}
    bool operator==(const Ref&) const = default;

   private:
    friend class Patch;
    friend class PatchPlan;
    enum class Kind { omitted, existing, constant, output };
    Ref(Kind kind, std::size_t index, std::size_t output)
        : kind_(kind), index_(index), output_(output) {}
    Kind kind_ = Kind::omitted;
    Value* value_ = nullptr;
    std::size_t index_ = 0;   // of the patch's constant or node
    std::size_t output_ = 0;  // of the node
  };
  struct NodeTemplate {
    std::string op_type;
    std::string domain;
    // Made unique. Empty: the name of the removed node whose output the new node replaces, if any.
    std::string name;
    std::vector<Ref> inputs;
    Attributes attributes;
    std::size_t outputs = 1;
    std::vector<std::size_t> omitted_outputs;  // not to be read
  };
  // What apply() did.
  struct Applied {
    std::vector<Node*> created;        // in the order of node() calls
    std::vector<Value*> constants;     // that were created and are read, or changed
    std::vector<const void*> removed;  // addresses of the nodes that are gone, as keys only
  };

  explicit Patch(Graph& graph) : graph_(&graph) {}

  // Nothing is to be changed after all, for a reason that shows only in what would be written.
  void decline(std::string reason) { declined_ = std::move(reason); }
  const std::optional<std::string>& declined() const { return declined_; }

  // A new initializer; `hint` is made unique.
  Ref constant(std::string hint, Tensor tensor);
  // A new node; returns its first output.
  Ref node(NodeTemplate node);
  Ref output(Ref node, std::size_t index) const;   // another output of a node()
  // Every reader of `old` reads `replacement`; interface names are kept. Element types and, where
  // both are known, shapes must agree. `replacement` must not be replaced by the same patch.
  void replace(Value* old, Ref replacement);
  // Only one reader, which may be in a graph nested in the patch's.
  void replace_input(Node* node, std::size_t index, Ref replacement);
  void set_constant(Value* constant, Tensor tensor);
  // New nodes come before this one, or the one of the patch's graph that holds it: it will read them.
  void place_before(Node* reader) { readers_.push_back(reader); }
  // The node goes with the patch; outputs must then be unused.
  void remove(Node* node);
  // The node goes if nothing reads it once the patch is applied.
  void remove_if_unread(Node* node);
  // Nodes that only removed nodes read go too, and nodes that only those read, and so on.
  void remove_unread_producers() { removes_producers_ = true; }

  bool empty() const;
  // Once. Throws Error (graph untouched): a removed node is still read, types contradict, an
  // interface name would change, a cycle would arise. Afterwards constants left without readers
  // by the patch are dropped.
  Applied apply();
  // After apply(): the value that `ref` stands for; nullptr for an omitted one and for a constant
  // that nothing reads.
  Value* value(Ref ref) const;

 private:
  friend class PatchPlan;

  void drop_unread_constants(const std::vector<Value*>& candidates);

  Graph* graph_;
  std::vector<NodeTemplate> nodes_;
  std::vector<std::pair<std::string, Tensor>> constants_;
  std::vector<std::pair<Value*, Ref>> replacements_;
  std::vector<std::pair<Use, Ref>> input_replacements_;
  std::vector<std::pair<Value*, Tensor>> constant_changes_;
  std::vector<Node*> readers_;  // of the new nodes, later on
  std::vector<Node*> removed_;
  std::vector<Node*> removed_if_unread_;
  bool removes_producers_ = false;
  std::optional<std::string> declined_;
  std::vector<Node*> new_nodes_;        // after apply()
  std::vector<Value*> new_constants_;   // after apply()
};

}  // namespace onnxpress
