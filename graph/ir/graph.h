// Value, Node, Graph: a directed graph in topological order, with subgraphs.
//
// Ownership: a Graph owns its inputs, initializers and nodes; a Node owns its outputs and, through
// attributes, its subgraphs. Identity is the object; only Graph's mutators change edges.
//
// Names are unique in each graph. A nested graph may use a name of a graph around it, as files do;
// a value is nevertheless always found under its name by the nodes that read it: a mutator that
// makes a node read an outer value gives values that hide it a new name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graph/ir/attribute.h"
#include "graph/ir/tensor.h"
#include "graph/ir/type.h"

namespace onnxpress {

class Node;
class Value;

// Operator-set versions by domain; "" and "ai.onnx" are the same and stored as "".
using OpsetImports = std::map<std::string, std::int64_t, std::less<>>;

// Values (or counts) by name, looked up without making a string.
struct NameHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view name) const {
    return std::hash<std::string_view>{}(name);
  }
};
template <class T>
using NameMap = std::unordered_map<std::string, T, NameHash, std::equal_to<>>;

// Input `index` of `node` reads the value; the node may live in a graph nested in the value's.
struct Use {
  Node* node = nullptr;
  std::size_t index = 0;
  bool operator==(const Use&) const = default;
};

// What a constant value holds: a dense tensor, or a sparse one (then `tensor` is undefined).
struct Initializer {
  Tensor tensor;
  std::unique_ptr<SparseTensor> sparse;
  std::string doc_string;
  Metadata metadata;
  std::string unknown_fields;

  Tensor dense() const;  // `tensor`, or the sparse tensor expanded
  Initializer clone() const;
};

// An edge: produced by one node, or a graph input, or an initializer (or both: IR 3 overridable).
class Value {
 public:
  const std::string& name() const { return name_; }
  Node* producer() const { return producer_; }             // nullptr for inputs and initializers
  std::size_t output_index() const { return output_index_; }  // among the producer's outputs
  Graph& graph() const { return *graph_; }                 // where it is defined
  std::span<const Use> uses() const { return uses_; }
  bool is_input() const { return is_input_; }
  // Graphs that list it as an output (its own, or one nested in it); one entry per listing.
  std::span<Graph* const> output_of() const { return output_of_; }
  bool is_output() const { return !output_of_.empty(); }
  bool is_unused() const { return uses_.empty() && output_of_.empty(); }
  // The initializer, or nullptr. An overridable one (is_input too) is not a constant.
  const Initializer* initializer() const { return initializer_.get(); }
  bool is_constant() const { return initializer_ && !is_input_; }
  // The constant's dense tensor, or nullptr when not constant or sparse.
  const Tensor* constant() const {
    return is_constant() && initializer_->tensor.defined() ? &initializer_->tensor : nullptr;
  }

  Type type;                    // what the file declares or inference found
  bool type_in_file = false;    // listed in value_info (inputs and outputs always are)
  std::string doc_string;
  Metadata metadata;
  std::string unknown_fields;

 private:
  friend class Graph;
  friend class Node;
  Value() = default;

  std::string name_;
  Graph* graph_ = nullptr;
  Node* producer_ = nullptr;
  std::size_t output_index_ = 0;
  bool is_input_ = false;
  std::unique_ptr<Initializer> initializer_;
  std::vector<Use> uses_;
  std::vector<Graph*> output_of_;
};

using Attributes = std::map<std::string, Attribute, std::less<>>;

// An operator call. Omitted optional inputs and outputs are nullptr.
class Node {
 public:
  ~Node();

  const std::string& op_type() const { return op_type_; }
  const std::string& domain() const { return domain_; }     // "" for ai.onnx
  const std::string& overload() const { return overload_; }
  bool is(std::string_view op_type, std::string_view domain = "") const {
    return op_type_ == op_type && domain_ == domain;
  }
  Graph& graph() const { return *graph_; }
  std::int64_t opset() const;  // version of its domain; 0 when not imported

  std::size_t input_count() const { return inputs_.size(); }
  std::size_t output_count() const { return outputs_.size(); }
  std::span<Value* const> inputs() const { return inputs_; }
  Value* input(std::size_t index) const {
    return index < inputs_.size() ? inputs_[index] : nullptr;
  }
  Value* output(std::size_t index = 0) const {
    return index < outputs_.size() ? outputs_[index].get() : nullptr;
  }
  std::vector<Value*> outputs() const;                      // nullptr where omitted

  // For op files and readers; passes go through the typed attributes of graph/ops.
  const Attribute* attribute(std::string_view name) const;
  const Attributes& attributes() const { return attributes_; }
  std::vector<Graph*> subgraphs() const;                    // of Graph and Graphs attributes
  // Values of enclosing graphs read by nodes (or listed as outputs) of its subgraphs, each once,
  // in order of first use.
  std::vector<Value*> captured() const;

  // "node 'conv3' (Conv)"; a nameless node goes by its first output: "node of 'y' (Conv)".
  std::string describe() const;

  std::string name;
  std::string doc_string;
  Metadata metadata;
  std::string unknown_fields;  // device configurations and whatever is newer

 private:
  friend class Graph;
  Node() = default;

  std::string op_type_, domain_, overload_;
  Graph* graph_ = nullptr;
  std::vector<Value*> inputs_;
  std::vector<std::unique_ptr<Value>> outputs_;
  Attributes attributes_;
  std::list<std::unique_ptr<Node>>::iterator position_;
};

// What add_node needs. Empty output names ("" in `outputs`) are made up from the node's name or
// operator; to omit an optional output, list its index in `omitted_outputs`. Trailing omitted
// inputs are cut, outputs are not (their number can matter, as in Split).
struct NodeSpec {
  std::string op_type;
  std::string domain;
  std::string overload;
  std::string name;
  std::vector<Value*> inputs;
  std::vector<std::string> outputs = {""};
  std::vector<std::size_t> omitted_outputs;
  Attributes attributes;
};

class Graph {
 public:
  // A root graph whose nodes resolve versions in `opsets`, which must outlive it.
  explicit Graph(const OpsetImports* opsets);
  // A subgraph: `parent`, the graph around the node that will own it, must outlive it.
  explicit Graph(Graph* parent);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  std::string name;
  std::string doc_string;
  Metadata metadata;
  std::string unknown_fields;  // quantization annotations and whatever is newer

  Graph* parent() const { return parent_; }
  // The node whose attribute holds this graph; nullptr for a root and until it is stored in one.
  Node* owner() const { return owner_; }
  const OpsetImports& opsets() const { return *opsets_; }
  std::int64_t opset(std::string_view domain = "") const;   // 0 when not imported

  std::span<Value* const> inputs() const { return input_list_; }
  std::span<Value* const> outputs() const { return outputs_; }
  std::vector<Value*> initializers() const;                 // in order; overridable inputs included
  std::vector<Node*> nodes() const;                         // snapshot in order: safe to edit under
  std::size_t node_count() const { return nodes_.size(); }
  // The value of that name in this graph, or nullptr.
  Value* find(std::string_view name) const;
  // The same in this graph or one around it.
  Value* find_visible(std::string_view name) const;
  // True for `outer` itself and for graphs nested in it.
  bool is_within(const Graph& outer) const;
  // The node of this graph that is `node` or holds it in a subgraph, or nullptr.
  Node* holder(Node* node) const;

  // --- mutators ---------------------------------------------------------------------------
  // All throw Error, and change nothing, when an argument belongs to another graph or is not
  // visible here, or a name is empty, taken in this graph, or read here from a graph around it.
  Value* add_input(std::string name, Type type);
  // The type is taken from the tensor (of a sparse one: the dense equivalent).
  Value* add_initializer(std::string name, Initializer initializer);
  Value* add_initializer(std::string name, Tensor tensor);
  // Makes an existing input overridable (IR 3): it stays an input and gets a default.
  void set_default(Value* input, Initializer initializer);
  // Replaces a constant's contents, type included.
  void set_initializer(Value* value, Tensor tensor);
  // An initializer that is also an input stops being an input and takes its tensor's type.
  void drop_input(Value* value);
  void remove_input(Value* value);                          // must be unused
  // Before `before`, or at the end when nullptr.
  Node* add_node(NodeSpec spec, Node* before = nullptr);
  // Subgraphs in the attribute must have been made with this graph as their parent.
  void set_attribute(Node* node, std::string name, Attribute attribute);
  void remove_attribute(Node* node, std::string_view name);
  void set_operator(Node* node, std::string op_type, std::string domain = "",
                    std::string overload = "");
  // Grows the input list as needed; nullptr omits the input; trailing omitted ones are cut.
  void set_node_input(Node* node, std::size_t index, Value* value);
  void omit_node_output(Node* node, std::size_t index);     // the output must be unused
  void add_output(Value* value);
  void remove_output(std::size_t index);
  // Every reader of `old` (nested graphs and graph outputs included) reads `replacement`, even the
  // node that makes `replacement`. A graph output keeps its name and declared type: the replacement
  // takes the name over, or an Identity node is put in where it cannot (it is an input, an
  // initializer, an output already, or of another graph). `old` remains, unused, under a new name
  // if its name was taken over. Throws Error when `old` is both input and output of a root graph,
  // since the output then cannot keep its name.
  void replace_uses(Value* old, Value* replacement);
  void remove(Node* node);                                  // its outputs must be unused
  void remove_initializer(Value* value);                    // must be unused
  void rename(Value* value, std::string name);
  void move_before(Node* node, Node* before);               // at the end when nullptr
  // Orders the nodes of this graph and those nested in it topologically: each time the first of the
  // nodes that are ready, so that an order that is right stays. Throws Error naming a node on a
  // cycle.
  void sort();

  // `hint`, or hint_N with a small N: free in the root graph and everything nested in it.
  std::string unique_name(std::string_view hint) const;

  // Calls fn on this graph and every graph nested in it, outermost first.
  void for_each_graph(const std::function<void(Graph&)>& fn);
  void for_each_graph(const std::function<void(const Graph&)>& fn) const;

 private:
  Graph* root();
  const Graph* root() const;
  void check_owned(const Node* node) const;
  void check_owned(const Value* value) const;
  void check_visible(const Value* value) const;
  void check_name(std::string_view wanted) const;
  void check_attribute(const Attribute& attribute) const;
  Value* add_value(std::string wanted, Type type);
  void register_name(Value* value, std::string wanted);
  void unregister_name(const std::string& known);
  void unhide(const Value* value);
  void unhide_for_readers(const Value* value);
  static void add_use(Node* node, std::size_t index, Value* value);
  static void drop_use(Node* node, std::size_t index);
  void drop_listing(Value* value);
  void drop_edges(const Graph& dying);
  void erase_owned(Value* value);
  void replace_output(Value* old, Value* replacement);
  void sort_nodes();

  Graph* parent_ = nullptr;
  Node* owner_ = nullptr;
  const OpsetImports* opsets_ = nullptr;
  std::vector<std::unique_ptr<Value>> owned_;               // inputs and initializers, in order
  std::vector<Value*> input_list_;
  std::vector<Value*> outputs_;
  std::list<std::unique_ptr<Node>> nodes_;
  NameMap<Value*> by_name_;
  NameMap<int> names_in_tree_;                              // of the root: this and nested graphs
};

template <class T>
Attribute::Attribute(T initial) {
  if constexpr (std::is_integral_v<T>)
    value = static_cast<std::int64_t>(initial);
  else if constexpr (std::is_floating_point_v<T>)
    value = static_cast<float>(initial);
  else if constexpr (std::is_same_v<T, const char*> || std::is_same_v<T, std::string_view>)
    value = std::string(initial);
  else if constexpr (std::is_same_v<T, Tensor>)
    value = NamedTensor{.tensor = std::move(initial)};
  else
    value = std::move(initial);
}

}  // namespace onnxpress
