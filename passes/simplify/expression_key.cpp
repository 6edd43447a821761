#include "passes/simplify/expression_key.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>
#include <unordered_map>

#include "graph/base/hash.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr std::size_t largest_verbatim = 256;  // bytes of a tensor in a key

// Operators f with f(a, b) bit-equal to f(b, a).
bool is_commutative(const Node& node) {
  constexpr std::array<std::string_view, 9> commutative = {
      "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Mul", "Or", "Xor"};
  return node.domain().empty() && node.input_count() == 2 &&
         std::ranges::find(commutative, node.op_type()) != commutative.end();
}

class KeyBuilder {
 public:
  explicit KeyBuilder(const std::function<const Value*(const Value*)>& canonical)
      : canonical_(canonical) {}

  std::string build(const Node& node) {
    add(node);
    return std::move(key_);
  }

 private:
  template <class T>
  void add_raw(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    key_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void add_count(std::size_t count) { add_raw(static_cast<std::uint64_t>(count)); }
  void add(std::int64_t value) { add_raw(value); }
  void add(float value) { add_raw(value); }
  void add(const std::string& text) {
    add_count(text.size());
    key_ += text;
  }
  void add(std::monostate) {}
  template <class T>
  void add(const std::vector<T>& list) {
    add_count(list.size());
    for (const T& item : list) add(item);
  }

  void add(const Tensor& tensor) {
    add_raw(tensor.dtype());
    add(tensor.dims());
    if (tensor.dtype() == DType::string) {
      add(tensor.strings());
    } else if (tensor.defined() && tensor.byte_size() <= largest_verbatim) {
      const auto bytes = tensor.bytes();
      key_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    } else if (tensor.defined()) {
      const Hash128 hash = Hasher().add_bytes(tensor.bytes()).finish();
      add_raw(hash.high);
      add_raw(hash.low);
    }
  }
  void add(const NamedTensor& named) {
    add(named.tensor);
    add(named.unknown_fields);
  }
  void add(const SparseTensor& sparse) {
    add(sparse.values);
    add(sparse.indices);
    add(sparse.dims);
    add(sparse.unknown_fields);
  }
  void add(const Type& type) {
    add(to_string(type));
    add(type.unknown_fields);
  }
  void add(const std::unique_ptr<Graph>& graph) { add(*graph); }

  void add(const Attribute& attribute) {
    add(static_cast<std::int64_t>(attribute.kind()));
    add(attribute.ref);
    add(attribute.unknown_fields);
    std::visit([this](const auto& value) { add(value); }, attribute.value);
  }

  // A value defined inside the subgraph goes by its number, one of around it by its address.
  std::uint64_t identity(const Value* value) const {
    if (!value) return 0;
    if (const auto inner = numbers_.find(value); inner != numbers_.end()) return inner->second;
    return std::bit_cast<std::uintptr_t>(canonical_(value));
  }
  // Odd, as no address is.
  void define(const Value* value) { numbers_.emplace(value, 2 * numbers_.size() + 1); }

  void add(const Node& node) {
    add(node.domain());
    add(node.op_type());
    add(node.overload());
    add(node.unknown_fields);
    std::vector<std::uint64_t> inputs;
    for (const Value* input : node.inputs()) inputs.push_back(identity(input));
    if (is_commutative(node)) std::ranges::sort(inputs);
    add_count(inputs.size());
    for (const std::uint64_t input : inputs) add_raw(input);
    add_count(node.output_count());
    for (const Value* output : node.outputs()) add_raw(output != nullptr);
    add_count(node.attributes().size());
    for (const auto& [name, attribute] : node.attributes()) {
      add(name);
      add(attribute);
    }
  }

  void add(const Graph& graph) {
    const std::vector<Node*> nodes = graph.nodes();
    add_count(graph.inputs().size());
    for (const Value* input : graph.inputs()) {
      define(input);
      add(input->type);
    }
    const std::vector<Value*> constants = graph.initializers();
    add_count(constants.size());
    for (const Value* constant : constants) {
      if (!constant->is_input()) define(constant);
      add_raw(identity(constant));
      if (const SparseTensor* sparse = constant->initializer()->sparse.get())
        add(*sparse);
      else
        add(constant->initializer()->tensor);
    }
    for (const Node* node : nodes)
      for (const Value* output : node->outputs())
        if (output) define(output);
    add_count(nodes.size());
    for (const Node* node : nodes) add(*node);
    add_count(graph.outputs().size());
    for (const Value* output : graph.outputs()) add_raw(identity(output));
    add(graph.unknown_fields);
  }

  const std::function<const Value*(const Value*)>& canonical_;
  std::unordered_map<const Value*, std::uint64_t> numbers_;
  std::string key_;
};

void collect(const Attribute& attribute, std::vector<const Tensor*>& tensors);

void collect(const Node& node, std::vector<const Tensor*>& tensors) {
  for (const auto& [name, attribute] : node.attributes()) collect(attribute, tensors);
}

void collect(const Attribute& attribute, std::vector<const Tensor*>& tensors) {
  const auto add_sparse = [&](const SparseTensor& sparse) {
    tensors.push_back(&sparse.values.tensor);
    tensors.push_back(&sparse.indices.tensor);
  };
  if (const auto* one = std::get_if<NamedTensor>(&attribute.value)) tensors.push_back(&one->tensor);
  if (const auto* list = std::get_if<std::vector<NamedTensor>>(&attribute.value))
    for (const NamedTensor& each : *list) tensors.push_back(&each.tensor);
  if (const auto* one = std::get_if<SparseTensor>(&attribute.value)) add_sparse(*one);
  if (const auto* list = std::get_if<std::vector<SparseTensor>>(&attribute.value))
    for (const SparseTensor& each : *list) add_sparse(each);
  for (const Graph* graph : attribute.subgraphs()) {
    for (const Value* constant : graph->initializers()) {
      if (const SparseTensor* sparse = constant->initializer()->sparse.get())
        add_sparse(*sparse);
      else
        tensors.push_back(&constant->initializer()->tensor);
    }
    for (const Node* node : graph->nodes()) collect(*node, tensors);
  }
}

bool is_deterministic(const Model& model, const Node& node, std::set<const Function*>& known) {
  if (const Function* function = model.function(node)) {
    if (!known.insert(function).second) return true;
    const std::vector<Node*> nodes = function->body.nodes();
    return std::ranges::all_of(
        nodes, [&](const Node* inner) { return is_deterministic(model, *inner, known); });
  }
  const OpDef* op = operators().find(node);
  // Dropout is random in training, which an input may ask for.
  if (!op || !op->deterministic || node.is("Dropout")) return false;
  const std::vector<Graph*> graphs = node.subgraphs();
  return std::ranges::all_of(graphs, [&](const Graph* graph) {
    const std::vector<Node*> nodes = graph->nodes();
    return std::ranges::all_of(
        nodes, [&](const Node* inner) { return is_deterministic(model, *inner, known); });
  });
}

}  // namespace

bool is_deterministic(const Model& model, const Node& node) {
  std::set<const Function*> known;
  return is_deterministic(model, node, known);
}

std::string expression_key(const Node& node,
                           const std::function<const Value*(const Value*)>& canonical) {
  return KeyBuilder(canonical).build(node);
}

bool equal_attribute_tensors(const Node& a, const Node& b) {
  std::vector<const Tensor*> left, right;
  collect(a, left);
  collect(b, right);
  return std::ranges::equal(left, right, [](const Tensor* x, const Tensor* y) {
    return x->defined() == y->defined() && (!x->defined() || x->equals(*y));
  });
}

bool compatible(const Type& a, const Type& b) {
  if (a.kind == Type::Kind::unknown || b.kind == Type::Kind::unknown) return true;
  if (a.kind != b.kind) return false;
  if (a.elem != b.elem && a.elem != DType::undefined && b.elem != DType::undefined) return false;
  if (!a.shape || !b.shape) return true;
  return std::ranges::equal(*a.shape, *b.shape, [](const Dim& x, const Dim& y) {
    return !x.is_known() || !y.is_known() || x.value() == y.value();
  });
}

}  // namespace onnxpress
