// A rewrite as a value: built freely, checked as a whole, applied at once.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

// An edit of one graph. Building it changes nothing; apply() checks everything first, so that a
// patch that throws leaves the graph untouched.
class Patch {
 public:
  // A value of the graph or one the patch will create.
  class Ref {
   public:
    Ref() = default;                       // an omitted optional input
    Ref(Value* value) : value_(value) {}   // NOLINT: existing values stand for themselves
   private:
    friend class Patch;
    Ref(std::size_t node, std::size_t output) : node_(node), output_(output), is_new_(true) {}
    Value* value_ = nullptr;
    std::size_t node_ = 0, output_ = 0;
    bool is_new_ = false;
    bool is_constant_ = false;
  };
  struct NodeTemplate {
    std::string op_type;
    std::string domain;
    std::string name;                      // made unique
    std::vector<Ref> inputs;
    Attributes attributes;
    std::size_t outputs = 1;
  };

  explicit Patch(Graph& graph) : graph_(&graph) {}

  // A new initializer; `hint` is made unique.
  Ref constant(std::string hint, Tensor tensor);
  // A new node; returns its first output.
  Ref node(NodeTemplate node);
  Ref output(Ref node, std::size_t index) const;   // another output of a node()
  // Every reader of `old` reads `replacement`; interface names are kept. Element types and, where
  // both are known, shapes must agree.
  void replace(Value* old, Ref replacement);
  void replace_input(Node* node, std::size_t index, Ref replacement);
  void set_constant(Value* constant, Tensor tensor);
  // The node goes with the patch; outputs must then be unused.
  void remove(Node* node);

  bool empty() const;
  // Throws Error (graph untouched): a removed node is still read, types contradict, an interface
  // name would change, a cycle would arise. Afterwards constants left without readers are dropped.
  void apply();

 private:
  struct Replacement;
  Graph* graph_;
  std::vector<NodeTemplate> nodes_;
  std::vector<std::pair<std::string, Tensor>> constants_;
  std::vector<std::pair<Value*, Ref>> replacements_;
  std::vector<std::pair<Use, Ref>> input_replacements_;
  std::vector<std::pair<Value*, Tensor>> constant_changes_;
  std::vector<Node*> removed_;
};

}  // namespace onnxpress
