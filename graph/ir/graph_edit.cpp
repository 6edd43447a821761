// Mutators: inputs, initializers, nodes, outputs. Each checks all its arguments before it changes
// anything.
#include <algorithm>
#include <utility>

#include "graph/ir/graph.h"

namespace onnxpress {
namespace {

std::string normalized(std::string domain) { return domain == "ai.onnx" ? "" : domain; }

Type type_of(const Initializer& initializer) {
  if (initializer.sparse)
    return Type::tensor(initializer.sparse->values.tensor.dtype(),
                        to_shape(initializer.sparse->dims));
  return Type::of(initializer.tensor);
}

void cut_omitted(std::vector<Value*>& inputs) {
  while (!inputs.empty() && !inputs.back()) inputs.pop_back();
}

}  // namespace

// --- checks -----------------------------------------------------------------------------------

void Graph::check_owned(const Node* node) const {
  if (node->graph_ != this) fail("{} is of another graph", node->describe());
}

void Graph::check_owned(const Value* value) const {
  if (value->graph_ != this) fail("value '{}' is of another graph", value->name_);
}

void Graph::check_visible(const Value* value) const {
  if (!is_within(*value->graph_))
    fail("value '{}' is not visible from graph '{}'", value->name_, name);
}

void Graph::check_name(std::string_view wanted) const {
  if (wanted.empty()) fail("a value in graph '{}' has no name", name);
  if (by_name_.contains(wanted)) fail("duplicate value name '{}'", wanted);
  const Value* outer = parent_ ? parent_->find_visible(wanted) : nullptr;
  if (!outer) return;
  const auto read_here = [this](const Graph* reader) { return reader->is_within(*this); };
  if (std::ranges::any_of(outer->uses_, [&](Use use) { return read_here(use.node->graph_); }) ||
      std::ranges::any_of(outer->output_of_, read_here))
    fail("duplicate value name '{}': graph '{}' reads it from a graph around it", wanted, name);
}

void Graph::check_attribute(const Attribute& attribute) const {
  for (const Graph* subgraph : attribute.subgraphs()) {
    if (!subgraph) fail("an attribute holds an empty graph");
    if (subgraph->parent_ != this || subgraph->owner_)
      fail("subgraph '{}' was not made for a node of graph '{}'", subgraph->name, name);
  }
}

// --- names and edges --------------------------------------------------------------------------

void Graph::register_name(Value* value, std::string wanted) {
  check_name(wanted);
  by_name_.emplace(wanted, value);
  ++root()->names_in_tree_[wanted];
  value->name_ = std::move(wanted);
}

void Graph::unregister_name(const std::string& known) {
  NameMap<int>& counts = root()->names_in_tree_;
  const auto count = counts.find(known);
  if (--count->second == 0) counts.erase(count);
  by_name_.erase(by_name_.find(known));
}

// Renames the values that hide `value` from this graph.
void Graph::unhide(const Value* value) {
  for (Graph* graph = this; graph != value->graph_; graph = graph->parent_)
    if (Value* hiding = graph->find(value->name_))
      graph->rename(hiding, unique_name(value->name_));
}

void Graph::unhide_for_readers(const Value* value) {
  for (const Use& use : value->uses_) use.node->graph_->unhide(value);
  for (Graph* graph : value->output_of_) graph->unhide(value);
}

void Graph::add_use(Node* node, std::size_t index, Value* value) {
  node->inputs_[index] = value;
  if (!value) return;
  value->uses_.push_back({node, index});
  node->graph_->unhide(value);
}

void Graph::drop_use(Node* node, std::size_t index) {
  Value* value = std::exchange(node->inputs_[index], nullptr);
  if (value) value->uses_.erase(std::ranges::find(value->uses_, Use{node, index}));
}

// --- inputs and initializers ------------------------------------------------------------------

Value* Graph::add_value(std::string wanted, Type type) {
  std::unique_ptr<Value> value(new Value);
  register_name(value.get(), std::move(wanted));
  value->graph_ = this;
  value->type = std::move(type);
  owned_.push_back(std::move(value));
  return owned_.back().get();
}

void Graph::erase_owned(Value* value) {
  unregister_name(value->name_);
  owned_.erase(std::ranges::find(owned_, value, &std::unique_ptr<Value>::get));
}

Value* Graph::add_input(std::string wanted, Type type) {
  Value* value = add_value(std::move(wanted), std::move(type));
  value->is_input_ = true;
  input_list_.push_back(value);
  return value;
}

Value* Graph::add_initializer(std::string wanted, Initializer initializer) {
  Value* value = add_value(std::move(wanted), type_of(initializer));
  value->initializer_ = std::make_unique<Initializer>(std::move(initializer));
  return value;
}

Value* Graph::add_initializer(std::string wanted, Tensor tensor) {
  return add_initializer(std::move(wanted), Initializer{.tensor = std::move(tensor)});
}

void Graph::set_default(Value* input, Initializer initializer) {
  check_owned(input);
  require(input->is_input_, "value '{}' is not an input of graph '{}'", input->name_, name);
  input->initializer_ = std::make_unique<Initializer>(std::move(initializer));
}

void Graph::set_initializer(Value* value, Tensor tensor) {
  check_owned(value);
  require(value->is_constant(), "value '{}' is not a constant", value->name_);
  value->type = Type::of(tensor);
  value->initializer_->tensor = std::move(tensor);
  value->initializer_->sparse.reset();
}

void Graph::drop_input(Value* value) {
  check_owned(value);
  require(value->is_input_ && value->initializer_, "value '{}' is not an input with a default",
          value->name_);
  std::erase(input_list_, value);
  value->is_input_ = false;
  value->type = type_of(*value->initializer_);
}

void Graph::remove_input(Value* value) {
  check_owned(value);
  require(value->is_input_, "value '{}' is not an input of graph '{}'", value->name_, name);
  require(value->is_unused(), "input '{}' is still used", value->name_);
  std::erase(input_list_, value);
  erase_owned(value);
}

void Graph::remove_initializer(Value* value) {
  check_owned(value);
  require(value->is_constant(), "value '{}' is not a constant", value->name_);
  require(value->is_unused(), "initializer '{}' is still used", value->name_);
  erase_owned(value);
}

// --- nodes ------------------------------------------------------------------------------------

Node* Graph::add_node(NodeSpec spec, Node* before) {
  require(!spec.op_type.empty(), "node '{}' has no operator type", spec.name);
  if (before) check_owned(before);
  for (const Value* input : spec.inputs)
    if (input) check_visible(input);
  for (const auto& [key, attribute] : spec.attributes) check_attribute(attribute);
  const auto is_omitted = [&](std::size_t i) {
    return std::ranges::find(spec.omitted_outputs, i) != spec.omitted_outputs.end();
  };
  for (std::size_t i = 0; i < spec.outputs.size(); ++i) {
    const std::string& wanted = spec.outputs[i];
    if (is_omitted(i) || wanted.empty()) continue;
    check_name(wanted);
    const auto same_name = [&](const Value* input) { return input && input->name_ == wanted; };
    if (std::ranges::any_of(spec.inputs, same_name) ||
        std::ranges::count(spec.outputs, wanted) > 1)
      fail("duplicate value name '{}'", wanted);
  }

  std::unique_ptr<Node> owned(new Node);
  Node* node = owned.get();
  node->op_type_ = std::move(spec.op_type);
  node->domain_ = normalized(std::move(spec.domain));
  node->overload_ = std::move(spec.overload);
  node->name = std::move(spec.name);
  node->graph_ = this;
  node->position_ = nodes_.insert(before ? before->position_ : nodes_.end(), std::move(owned));
  node->outputs_.resize(spec.outputs.size());
  const auto make_output = [&](std::size_t i, std::string output_name) {
    node->outputs_[i].reset(new Value);
    Value* value = node->outputs_[i].get();
    value->graph_ = this;
    value->producer_ = node;
    value->output_index_ = i;
    register_name(value, std::move(output_name));
  };
  for (std::size_t i = 0; i < spec.outputs.size(); ++i)
    if (!is_omitted(i) && !spec.outputs[i].empty()) make_output(i, spec.outputs[i]);
  const std::string hint = node->name.empty() ? node->op_type_ : node->name;
  for (std::size_t i = 0; i < spec.outputs.size(); ++i)
    if (!is_omitted(i) && spec.outputs[i].empty()) make_output(i, unique_name(hint));

  cut_omitted(spec.inputs);
  node->inputs_.resize(spec.inputs.size());
  for (std::size_t i = 0; i < spec.inputs.size(); ++i) add_use(node, i, spec.inputs[i]);
  node->attributes_ = std::move(spec.attributes);
  for (Graph* subgraph : node->subgraphs()) subgraph->owner_ = node;
  return node;
}

void Graph::set_attribute(Node* node, std::string key, Attribute attribute) {
  check_owned(node);
  check_attribute(attribute);
  for (Graph* subgraph : attribute.subgraphs()) subgraph->owner_ = node;
  node->attributes_.insert_or_assign(std::move(key), std::move(attribute));
}

void Graph::remove_attribute(Node* node, std::string_view key) {
  check_owned(node);
  if (const auto found = node->attributes_.find(key); found != node->attributes_.end())
    node->attributes_.erase(found);
}

void Graph::set_operator(Node* node, std::string op_type, std::string domain,
                         std::string overload) {
  check_owned(node);
  require(!op_type.empty(), "{} cannot lose its operator type", node->describe());
  node->op_type_ = std::move(op_type);
  node->domain_ = normalized(std::move(domain));
  node->overload_ = std::move(overload);
}

void Graph::set_node_input(Node* node, std::size_t index, Value* value) {
  check_owned(node);
  if (value) check_visible(value);
  if (index >= node->inputs_.size()) node->inputs_.resize(index + 1);
  drop_use(node, index);
  add_use(node, index, value);
  cut_omitted(node->inputs_);
}

void Graph::omit_node_output(Node* node, std::size_t index) {
  check_owned(node);
  const Value* value = node->output(index);
  if (!value) return;
  require(value->is_unused(), "output '{}' is still used", value->name_);
  unregister_name(value->name_);
  node->outputs_[index].reset();
}

void Graph::remove(Node* node) {
  check_owned(node);
  for (const auto& output : node->outputs_)
    if (output && !output->is_unused())
      fail("{} cannot be removed: '{}' is still used", node->describe(), output->name_);
  for (std::size_t i = 0; i < node->inputs_.size(); ++i) drop_use(node, i);
  for (const auto& output : node->outputs_)
    if (output) unregister_name(output->name_);
  nodes_.erase(node->position_);
}

void Graph::move_before(Node* node, Node* before) {
  check_owned(node);
  if (before) check_owned(before);
  if (node == before) return;
  nodes_.splice(before ? before->position_ : nodes_.end(), nodes_, node->position_);
}

// --- outputs and names ------------------------------------------------------------------------

void Graph::add_output(Value* value) {
  check_visible(value);
  outputs_.push_back(value);
  value->output_of_.push_back(this);
  unhide(value);
}

void Graph::drop_listing(Value* value) {
  value->output_of_.erase(std::ranges::find(value->output_of_, this));
}

void Graph::remove_output(std::size_t index) {
  require(index < outputs_.size(), "graph '{}' has {} outputs, not one of index {}", name,
          outputs_.size(), index);
  drop_listing(outputs_[index]);
  outputs_.erase(outputs_.begin() + static_cast<std::ptrdiff_t>(index));
}

void Graph::rename(Value* value, std::string wanted) {
  check_owned(value);
  if (value->name_ == wanted) return;
  const std::string old = value->name_;
  register_name(value, std::move(wanted));
  unregister_name(old);
  unhide_for_readers(value);
}

}  // namespace onnxpress
