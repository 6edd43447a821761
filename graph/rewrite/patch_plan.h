// What Patch::apply proves before its first edit, and where the edits go.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/rewrite/patch.h"

namespace onnxpress {

// Internal to Patch. Reads the graph only.
class PatchPlan {
 public:
  explicit PatchPlan(const Patch& patch);  // throws Error when the patch must not be applied

  std::vector<Node*> removed;            // in reverse order
  Node* before = nullptr;                // where new nodes go; nullptr: at the end
  bool sort_after = false;               // the insertion point alone does not give an order
  std::vector<std::string> node_names;   // of the new nodes
  std::vector<std::vector<Type>> types;  // of the new nodes' outputs, as far as rules tell

 private:
  using Ref = Patch::Ref;

  void check_refs() const;
  void check_ref(const Ref& ref, std::string_view role) const;
  void check_replacements() const;
  void check_constant_changes() const;
  void index_nodes();
  void settle_removals();
  void add_unread_producers();
  bool is_gone(Node* reader) const;  // itself, or the node that holds it
  // Who still reads an output of `node` once the patch is applied, as text; nothing when unread.
  std::optional<std::string> remaining_reader(const Node* node) const;
  std::optional<std::string> remaining_reader(Value* value) const;
  void infer_types_of_new_nodes();
  Type type_of(const Ref& ref) const;
  void check_types() const;
  void place();
  void name_nodes();
  void check_cycles() const;
  const Ref* replacement_of(const Value* value) const;
  Ref read_after(Value* value, const Use& use) const;
  std::optional<std::size_t> earliest_reader(Value* value) const;
  bool precedes_owner(const Value* value) const;
  std::size_t position(Node* reader) const;  // of the node of the patch's graph that holds it
  std::string describe(const Ref& ref) const;

  const Patch& patch_;
  const Graph& graph_;
  std::vector<Node*> order_;
  std::unordered_map<const Node*, std::size_t> positions_;
  std::unordered_set<const Node*> gone_;
};

}  // namespace onnxpress
