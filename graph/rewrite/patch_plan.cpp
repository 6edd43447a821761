#include "graph/rewrite/patch_plan.h"

#include <algorithm>
#include <limits>

#include "graph/ir/clone.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

bool contradict(const Type& a, const Type& b) {
  if (a.kind == Type::Kind::unknown || b.kind == Type::Kind::unknown) return false;
  if (a.kind != b.kind) return true;
  if (a.elem != DType::undefined && b.elem != DType::undefined && a.elem != b.elem) return true;
  if (!a.is_tensor() || !a.shape || !b.shape) return false;
  if (a.shape->size() != b.shape->size()) return true;
  for (std::size_t i = 0; i < a.shape->size(); ++i) {
    const Dim& x = (*a.shape)[i];
    const Dim& y = (*b.shape)[i];
    if (x.is_known() && y.is_known() && x.value() != y.value()) return true;
  }
  return false;
}

}  // namespace

PatchPlan::PatchPlan(const Patch& patch) : patch_(patch), graph_(*patch.graph_) {
  require(patch.new_nodes_.empty() && patch.new_constants_.empty(), "a patch is applied once");
  check_refs();
  index_nodes();
  settle_removals();
  check_replacements();
  check_constant_changes();
  infer_types_of_new_nodes();
  check_types();
  place();
  if (sort_after) check_cycles();
  name_nodes();
}

std::string PatchPlan::describe(const Ref& ref) const {
  switch (ref.kind_) {
    case Ref::Kind::omitted:
      return "an omitted value";
    case Ref::Kind::existing:
      return fmt::format("'{}'", ref.value_->name());
    case Ref::Kind::constant:
      return fmt::format("the new constant '{}'", patch_.constants_[ref.index_].first);
    case Ref::Kind::output:
      return fmt::format("output {} of the new {}", ref.output_, patch_.nodes_[ref.index_].op_type);
  }
  return {};
}

void PatchPlan::check_ref(const Ref& ref, std::string_view role) const {
  switch (ref.kind_) {
    case Ref::Kind::omitted:
      return;
    case Ref::Kind::existing:
      require(graph_.is_within(ref.value_->graph()), "{} '{}' is not visible from graph '{}'", role,
              ref.value_->name(), graph_.name);
      require(precedes_owner(ref.value_), "{} '{}' is defined after the node that holds graph '{}'",
              role, ref.value_->name(), graph_.name);
      return;
    case Ref::Kind::constant:
      require(ref.index_ < patch_.constants_.size(), "{} is a constant of another patch", role);
      return;
    case Ref::Kind::output:
      require(ref.index_ < patch_.nodes_.size() && ref.output_ < patch_.nodes_[ref.index_].outputs,
              "{} is a node of another patch", role);
      require(std::ranges::count(patch_.nodes_[ref.index_].omitted_outputs, ref.output_) == 0,
              "{} is an omitted output of the new {}", role, patch_.nodes_[ref.index_].op_type);
      return;
  }
}

void PatchPlan::check_refs() const {
  for (std::size_t i = 0; i < patch_.nodes_.size(); ++i) {
    const Patch::NodeTemplate& node = patch_.nodes_[i];
    require(!node.op_type.empty(), "a new node has no operator type");
    require(node.outputs > 0, "the new {} has no outputs", node.op_type);
    require(graph_.opset(node.domain) > 0, "the new {} is of domain '{}', which is not imported",
            node.op_type, node.domain);
    for (const Ref& input : node.inputs) {
      check_ref(input, fmt::format("an input of the new {}", node.op_type));
      require(input.kind_ != Ref::Kind::output || input.index_ < i,
              "the new {} reads a node that is made after it", node.op_type);
    }
  }
  for (const auto& [old, replacement] : patch_.replacements_) {
    require(old != nullptr, "an omitted value cannot be replaced");
    require(&old->graph() == &graph_, "'{}' is of another graph and cannot be replaced here",
            old->name());
    require(replacement.kind_ != Ref::Kind::omitted, "'{}' cannot be replaced by nothing",
            old->name());
    check_ref(replacement, "the replacement");
  }
  for (const auto& [use, replacement] : patch_.input_replacements_) {
    require(use.node->graph().is_within(graph_), "{} is not in graph '{}'", use.node->describe(),
            graph_.name);
    require(std::ranges::count(patch_.input_replacements_, use, &std::pair<Use, Ref>::first) == 1,
            "input {} of {} is replaced twice", use.index, use.node->describe());
    check_ref(replacement, "the replacement");
  }
}

// A value of a graph around must come before the node that holds the patch's graph.
bool PatchPlan::precedes_owner(const Value* value) const {
  if (&value->graph() == &graph_ || !value->producer()) return true;
  const Node* owner = nullptr;
  for (const Graph* graph = &graph_; graph != &value->graph(); graph = graph->parent())
    owner = graph->owner();
  for (const Node* node : value->graph().nodes()) {
    if (node == value->producer()) return node != owner;
    if (node == owner) return false;
  }
  return true;
}

void PatchPlan::index_nodes() {
  order_ = graph_.nodes();
  positions_.reserve(order_.size());
  for (std::size_t i = 0; i < order_.size(); ++i) positions_.emplace(order_[i], i);
}

std::size_t PatchPlan::position(Node* reader) const { return positions_.at(graph_.holder(reader)); }

bool PatchPlan::is_gone(Node* reader) const {
  if (gone_.empty() || !reader->graph().is_within(graph_)) return false;
  return gone_.contains(graph_.holder(reader));
}

const PatchPlan::Ref* PatchPlan::replacement_of(const Value* value) const {
  for (const auto& [old, replacement] : patch_.replacements_)
    if (old == value) return &replacement;
  return nullptr;
}

PatchPlan::Ref PatchPlan::read_after(Value* value, const Use& use) const {
  for (const auto& [replaced, replacement] : patch_.input_replacements_)
    if (replaced == use) return replacement;
  const Ref* replacement = replacement_of(value);
  return replacement ? *replacement : Ref(value);
}

std::optional<std::string> PatchPlan::remaining_reader(Value* value) const {
  for (const Use& use : value->uses())
    if (!is_gone(use.node) && read_after(value, use) == Ref(value)) return use.node->describe();
  if (!replacement_of(value))
    for (const Graph* listing : value->output_of())
      if (listing == &graph_ || !listing->owner() || !is_gone(listing->owner()))
        return fmt::format("the outputs of graph '{}'", listing->name);
  for (const Patch::NodeTemplate& node : patch_.nodes_)
    for (const Ref& input : node.inputs)
      if (input == Ref(value)) return fmt::format("the new {}", node.op_type);
  for (const auto& [old, replacement] : patch_.replacements_)
    if (replacement == Ref(value) &&
        (old->is_output() ||
         std::ranges::any_of(old->uses(), [&](const Use& use) { return !is_gone(use.node); })))
      return fmt::format("the readers of '{}'", old->name());
  for (const auto& [use, replacement] : patch_.input_replacements_)
    if (replacement == Ref(value) && !is_gone(use.node)) return use.node->describe();
  return std::nullopt;
}

std::optional<std::string> PatchPlan::remaining_reader(const Node* node) const {
  for (Value* output : node->outputs())
    if (output)
      if (auto reader = remaining_reader(output))
        return fmt::format("'{}' is still read by {}", output->name(), *reader);
  return std::nullopt;
}

void PatchPlan::settle_removals() {
  for (const Node* node : patch_.removed_) {
    require(positions_.contains(node), "a node to remove is not in graph '{}'", graph_.name);
    gone_.insert(node);
  }
  for (const Node* node : gone_)
    if (const auto reader = remaining_reader(node))
      fail("{} cannot be removed: {}", node->describe(), *reader);
  for (bool changed = true; std::exchange(changed, false);) {
    for (const Node* node : patch_.removed_if_unread_) {
      require(positions_.contains(node), "a node to remove is not in graph '{}'", graph_.name);
      if (!gone_.contains(node) && !remaining_reader(node)) changed |= gone_.insert(node).second;
    }
  }
  if (patch_.removes_producers_) add_unread_producers();
  for (std::size_t i = order_.size(); i-- > 0;)
    if (gone_.contains(order_[i])) removed.push_back(order_[i]);
  for (const auto& [use, replacement] : patch_.input_replacements_)
    require(!is_gone(use.node), "input {} of {} is replaced, but the node is removed", use.index,
            use.node->describe());
}

void PatchPlan::add_unread_producers() {
  std::vector<const Node*> pending(gone_.begin(), gone_.end());
  while (!pending.empty()) {
    const Node* node = pending.back();
    pending.pop_back();
    const auto consider = [&](const Value* read) {
      const Node* producer = read ? read->producer() : nullptr;
      if (producer && positions_.contains(producer) && !gone_.contains(producer) &&
          !remaining_reader(producer) && gone_.insert(producer).second)
        pending.push_back(producer);
    };
    for (const Value* input : node->inputs()) consider(input);
    for (const Value* captured : node->captured()) consider(captured);
  }
}

void PatchPlan::check_replacements() const {
  for (std::size_t i = 0; i < patch_.replacements_.size(); ++i) {
    const auto& [old, replacement] = patch_.replacements_[i];
    require(replacement_of(old) == &replacement, "'{}' is replaced twice", old->name());
    require(replacement != Ref(old), "'{}' cannot be replaced by itself", old->name());
    if (replacement.kind_ == Ref::Kind::existing)
      require(!replacement_of(replacement.value_),
              "'{}' is to be replaced by '{}', which the same patch replaces", old->name(),
              replacement.value_->name());
    for (const Graph* listing : old->output_of())
      require(!old->is_input() || listing != &graph_ || graph_.parent(),
              "'{}' is both input and output of graph '{}': its name cannot go to {}", old->name(),
              graph_.name, describe(replacement));
  }
}

void PatchPlan::check_constant_changes() const {
  for (const auto& [constant, tensor] : patch_.constant_changes_) {
    require(constant->is_constant(), "'{}' is not a constant", constant->name());
    require(tensor.defined(), "'{}' cannot become an undefined tensor", constant->name());
    require(std::ranges::count(patch_.constant_changes_, constant,
                               &std::pair<Value*, Tensor>::first) == 1,
            "the contents of '{}' are changed twice", constant->name());
    require(!constant->is_output() || !contradict(constant->type, Type::of(tensor)),
            "output '{}' is {}, its new contents {}", constant->name(), to_string(constant->type),
            to_string(Type::of(tensor)));
  }
}

Type PatchPlan::type_of(const Ref& ref) const {
  switch (ref.kind_) {
    case Ref::Kind::omitted:
      return {};
    case Ref::Kind::existing:
      for (const auto& [constant, tensor] : patch_.constant_changes_)
        if (constant == ref.value_) return Type::of(tensor);
      return ref.value_->type;
    case Ref::Kind::constant:
      return Type::of(patch_.constants_[ref.index_].second);
    case Ref::Kind::output:
      return types[ref.index_][ref.output_];
  }
  return {};
}

// Runs the shape rules on a model of the new nodes alone, whose inputs are the values they read.
void PatchPlan::infer_types_of_new_nodes() {
  types.clear();
  for (const Patch::NodeTemplate& node : patch_.nodes_) types.emplace_back(node.outputs);
  if (patch_.nodes_.empty()) return;

  Model scratch;
  scratch.opsets = graph_.opsets();
  std::unordered_map<const Value*, Value*> outer;
  std::vector<Value*> constants(patch_.constants_.size());
  std::vector<Node*> nodes(patch_.nodes_.size());
  const auto stand_in = [&](Value* value) -> Value* {
    Value*& copy = outer[value];
    if (copy) return copy;
    const std::string name = scratch.graph.unique_name(value->name());
    const Tensor* tensor = value->constant();
    for (const auto& [constant, changed] : patch_.constant_changes_)
      if (constant == value) tensor = &changed;
    copy = tensor ? scratch.graph.add_initializer(name, *tensor)
                  : scratch.graph.add_input(name, value->type);
    return copy;
  };
  const auto copy_of = [&](const Ref& ref) -> Value* {
    if (ref.kind_ == Ref::Kind::existing) return stand_in(ref.value_);
    if (ref.kind_ == Ref::Kind::output)  // nullptr: a node that is not inferred
      return nodes[ref.index_] ? nodes[ref.index_]->output(ref.output_)
                               : scratch.graph.add_input(scratch.graph.unique_name("opaque"), {});
    Value*& copy = constants[ref.index_];
    const auto& [hint, tensor] = patch_.constants_[ref.index_];
    if (!copy) copy = scratch.graph.add_initializer(scratch.graph.unique_name(hint + "_c"), tensor);
    return copy;
  };

  ValueMap nothing;
  for (std::size_t i = 0; i < patch_.nodes_.size(); ++i) {
    const Patch::NodeTemplate& node = patch_.nodes_[i];
    Attributes attributes;
    bool is_open =
        true;  // no subgraph that captures values, no reference to a function's attribute
    for (const auto& [key, attribute] : node.attributes) {
      is_open = is_open && attribute.ref.empty() && attribute.subgraphs().empty();
      if (is_open) attributes.emplace(key, clone_attribute(attribute, &scratch.graph, nothing));
    }
    if (!is_open) continue;
    std::vector<Value*> inputs;
    for (const Ref& ref : node.inputs)
      inputs.push_back(ref.kind_ == Ref::Kind::omitted ? nullptr : copy_of(ref));
    nodes[i] = scratch.graph.add_node({.op_type = node.op_type,
                                       .domain = node.domain,
                                       .name = node.name,
                                       .inputs = std::move(inputs),
                                       .outputs = std::vector<std::string>(node.outputs),
                                       .omitted_outputs = node.omitted_outputs,
                                       .attributes = std::move(attributes)});
  }
  TypeInference inference(scratch);
  in_context([] { return "new nodes"; }, [&] { inference.run(); });
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (std::size_t j = 0; nodes[i] && j < types[i].size(); ++j)
      if (const Value* output = nodes[i]->output(j)) types[i][j] = inference.type(output);
}

void PatchPlan::check_types() const {
  for (const auto& [old, replacement] : patch_.replacements_) {
    const Type type = type_of(replacement);
    require(!contradict(old->type, type), "'{}' is {}, its replacement, {}, is {}", old->name(),
            to_string(old->type), describe(replacement), to_string(type));
  }
  for (const auto& [use, replacement] : patch_.input_replacements_) {
    const Value* old = use.node->input(use.index);
    if (!old) continue;
    const Type type = type_of(replacement);
    require(old->type.elem == DType::undefined || type.elem == DType::undefined ||
                old->type.elem == type.elem,
            "input {} of {} is {}, its replacement, {}, is {}", use.index, use.node->describe(),
            to_string(old->type), describe(replacement), to_string(type));
  }
}

std::optional<std::size_t> PatchPlan::earliest_reader(Value* value) const {
  std::optional<std::size_t> earliest;
  const auto note = [&](Node* reader) {
    const std::size_t at = position(reader);
    if (!gone_.contains(order_[at])) earliest = std::min(earliest.value_or(at), at);
  };
  for (const Use& use : value->uses()) note(use.node);
  for (Graph* listing : value->output_of())
    if (listing != &graph_ && listing->owner()) note(listing->owner());
  return earliest;
}

// New nodes go, all together, to the place of the first value they stand for (else before the first
// reader): readers come after that. If what they read does not come before it, the graph is sorted.
void PatchPlan::place() {
  constexpr std::size_t at_end = std::numeric_limits<std::size_t>::max();
  std::size_t anchor = at_end;
  const auto produced_at = [&](const Ref& ref) -> std::size_t {  // 0: before all nodes
    if (ref.kind_ != Ref::Kind::existing || &ref.value_->graph() != &graph_) return 0;
    const auto found = positions_.find(ref.value_->producer());
    return found == positions_.end() ? 0 : found->second + 1;
  };
  std::size_t last_input = 0;  // a node at or after this position sees everything the new ones read
  for (const Patch::NodeTemplate& node : patch_.nodes_)
    for (const Ref& input : node.inputs) last_input = std::max(last_input, produced_at(input));
  for (const auto& [old, replacement] : patch_.replacements_) {
    const std::optional<std::size_t> reader = earliest_reader(old);
    if (replacement.kind_ == Ref::Kind::output) {
      const auto producer = positions_.find(old->producer());
      const bool in_place = producer != positions_.end() && last_input <= producer->second;
      if (in_place)
        anchor = std::min(anchor, producer->second);
      else if (reader)
        anchor = std::min(anchor, *reader);
    } else if (reader && produced_at(replacement) > *reader) {
      sort_after = true;
    }
  }
  for (const auto& [use, replacement] : patch_.input_replacements_) {
    const std::size_t reader = position(use.node);
    if (replacement.kind_ == Ref::Kind::output)
      anchor = std::min(anchor, reader);
    else
      sort_after = sort_after || produced_at(replacement) > reader;
  }
  for (Node* reader : patch_.readers_) anchor = std::min(anchor, position(reader));
  if (patch_.nodes_.empty()) return;
  sort_after = sort_after || last_input > anchor;
  before = anchor < order_.size() ? order_[anchor] : nullptr;
}

// Depth first over the nodes as they will be; only reached when order alone does not rule cycles
// out.
void PatchPlan::check_cycles() const {
  const std::size_t existing = order_.size();
  const std::size_t count = existing + patch_.nodes_.size();
  const auto reads = [&](std::size_t node) {
    std::vector<std::size_t> producers;
    const auto note = [&](const Ref& ref) {
      if (ref.kind_ == Ref::Kind::output) producers.push_back(existing + ref.index_);
      if (ref.kind_ != Ref::Kind::existing) return;
      const auto found = positions_.find(ref.value_->producer());
      if (found != positions_.end()) producers.push_back(found->second);
    };
    if (node >= existing) {
      for (const Ref& input : patch_.nodes_[node - existing].inputs) note(input);
      return producers;
    }
    Node* current = order_[node];
    if (gone_.contains(current)) return producers;
    for (std::size_t i = 0; i < current->input_count(); ++i)
      if (Value* input = current->input(i)) note(read_after(input, {current, i}));
    for (const auto& [use, replacement] : patch_.input_replacements_)
      if (use.node == current && use.index >= current->input_count()) note(replacement);
    for (Value* captured : current->captured()) {
      const Ref* replacement = replacement_of(captured);
      note(replacement ? *replacement : Ref(captured));
    }
    return producers;
  };

  enum class State : char { fresh, open, done };
  std::vector<State> states(count, State::fresh);
  struct Visit {
    std::size_t node;
    std::vector<std::size_t> waiting;
  };
  std::vector<Visit> path;
  const auto enter = [&](std::size_t node) {
    states[node] = State::open;
    path.push_back({node, reads(node)});
  };
  for (std::size_t start = 0; start < count; ++start) {
    if (states[start] == State::fresh) enter(start);
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.waiting.empty()) {
        states[visit.node] = State::done;
        path.pop_back();
        continue;
      }
      const std::size_t next = visit.waiting.back();
      visit.waiting.pop_back();
      if (states[next] == State::open)
        fail("the patch would make a cycle through {}",
             next < existing ? order_[next]->describe()
                             : fmt::format("the new {}", patch_.nodes_[next - existing].op_type));
      if (states[next] == State::fresh) enter(next);
    }
  }
}

void PatchPlan::name_nodes() {
  node_names.resize(patch_.nodes_.size());
  for (std::size_t i = 0; i < node_names.size(); ++i) {
    node_names[i] = patch_.nodes_[i].name;
    if (!node_names[i].empty()) continue;
    for (const auto& [old, replacement] : patch_.replacements_)
      if (replacement.kind_ == Ref::Kind::output && replacement.index_ == i && old->producer() &&
          gone_.contains(old->producer()))
        node_names[i] = old->producer()->name;
  }
  std::unordered_set<std::string> taken;
  for (const Node* node : order_)
    if (!gone_.contains(node)) taken.insert(node->name);
  for (std::string& name : node_names) {
    if (name.empty()) continue;
    const std::string hint = name;
    for (int number = 1; taken.contains(name); ++number) name = fmt::format("{}_{}", hint, number);
    taken.insert(name);
  }
}

}  // namespace onnxpress
