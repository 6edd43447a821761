// Moves Transposes across operators that do not mind the order of the axes, where they cancel.
//
// From each Transpose a region grows: the values that could be kept permuted instead, through all
// nodes that have a permuted form. Which nodes of it take that form is a minimum cut: a Transpose
// stands wherever a value is made in one form and read in the other, and those that make, or ask
// for, the permuted form are then free. The move is planned as a whole and made only when it leaves
// fewer Transposes than there are, so it ends, and undoes nothing that another pass did.
#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "graph/ir/clone.h"
#include "graph/ops/permuted_form.h"
#include "graph/ops/transpose.h"
#include "graph/rewrite/live_types.h"
#include "passes/common/min_cut.h"
#include "passes/core/registry.h"
#include "passes/simplify/transpose_region.h"

namespace onnxpress {
namespace {

constexpr const char* rule_name = "sink_transposes";

// A constant with its axes permuted; one with fewer axes than the permutation broadcasts.
Tensor permuted_constant(const Tensor& tensor, const Permutation& p) {
  const std::size_t missing = p.size() - tensor.rank();
  Dims dims(missing, 1);
  dims.insert(dims.end(), tensor.dims().begin(), tensor.dims().end());
  Tensor moved = transposed(tensor.reshaped(dims), p);
  if (missing == 0) return moved;
  dims = moved.dims();
  dims.erase(dims.begin(), std::ranges::find_if(dims, [](std::int64_t dim) { return dim != 1; }));
  return moved.reshaped(dims);
}

// What a Transpose is to a region.
enum class Role {
  none,
  source,    // its result's permuted form is its input
  composes,  // its result's permuted form is its input under another permutation
  target,    // its result is its input's permuted form
  follows,   // its result is its input's permuted form under another permutation
};

Role role_of(const Node& node, const TransposeRegion& region, const TypeInference& types) {
  if (&node.graph() != &region.graph()) return Role::none;
  const std::optional<Permutation> p = permutation_of(node, types);
  if (!p) return Role::none;
  if (const Permutation* result = region.alternate(node.output()))
    return *result == inverse(*p) ? Role::source : Role::composes;
  const Permutation* input = region.alternate(node.input(0));
  if (input == nullptr) return Role::none;
  return *input == *p ? Role::target : Role::follows;
}

// The nodes of a region that are best in their permuted form.
struct Plan {
  std::unordered_set<const Node*> permuted;
  int before = 0, after = 0;  // Transposes that the region is answerable for
};

class Planner {
 public:
  Planner(const TransposeRegion& region, const TypeInference& types)
      : region_(region), types_(types) {}

  Plan plan() {
    for (Value* value : region_.values()) add(*value);
    Plan plan{.before = cost(std::vector<bool>(vertices_, false))};
    const std::vector<bool> side = cut_.source_side();
    plan.after = cost(side);
    for (const auto& [node, vertex] : of_node_)
      if (side[vertex]) plan.permuted.insert(node);
    return plan;
  }

 private:
  // What a value is made and read by: vertices, source for the permuted form.
  struct Edge {
    std::size_t producer;
    std::vector<std::size_t> consumers;
    int weight = 1;
  };

  std::size_t vertex() { return vertices_ = cut_.add_vertex() + 1, vertices_ - 1; }
  std::size_t vertex_of(const Node* node) {
    const auto found = of_node_.find(node);
    return found != of_node_.end() ? found->second : of_node_.emplace(node, vertex()).first->second;
  }

  void add(Value& value) {
    Edge edge{.producer = MinCut::sink};
    if (value.constant()) {
      edge.producer = vertex();
      // Two forms of a small one take less than a Transpose.
      edge.weight = value.constant()->byte_size() <= 32 ? 1 : MinCut::unlimited;
    } else if (const Node* producer = value.producer()) {
      const Role role = role_of(*producer, region_, types_);
      if (role == Role::source)
        edge.producer = MinCut::source;
      else if (role == Role::composes || region_.makes(value))
        edge.producer = vertex_of(producer);
    }
    if (value.is_output()) edge.consumers.push_back(MinCut::sink);
    for (const Use& use : value.uses()) {
      const Role role = role_of(*use.node, region_, types_);
      if (role == Role::target && !value.constant())
        edge.consumers.push_back(MinCut::source);
      else if (region_.reads(use))
        edge.consumers.push_back(vertex_of(use.node));
      else if (role == Role::none || role == Role::source)
        edge.consumers.push_back(MinCut::sink);
    }
    connect(edge);
    edges_.push_back(std::move(edge));
  }

  void connect(const Edge& edge) {
    // Made permuted and read as it was: paid once.
    const std::size_t original = cut_.add_vertex();
    cut_.add_edge(edge.producer, original, edge.weight);
    // And the other way round.
    const std::size_t permuted = cut_.add_vertex();
    cut_.add_edge(permuted, edge.producer, edge.weight);
    vertices_ = permuted + 1;
    for (const std::size_t consumer : edge.consumers) {
      cut_.add_edge(original, consumer, MinCut::unlimited);
      cut_.add_edge(consumer, permuted, MinCut::unlimited);
    }
  }

  int cost(const std::vector<bool>& side) const {
    const auto is_permuted = [&](std::size_t vertex) {
      return vertex == MinCut::source || side[vertex];
    };
    int total = 0;
    for (const Edge& edge : edges_) {
      const bool made = is_permuted(edge.producer);
      if (std::ranges::any_of(edge.consumers,
                              [&](std::size_t read) { return is_permuted(read) != made; }))
        total = std::min(total + edge.weight, MinCut::unlimited);
    }
    return total;
  }

  const TransposeRegion& region_;
  const TypeInference& types_;
  MinCut cut_;
  std::size_t vertices_ = 2;
  std::unordered_map<const Node*, std::size_t> of_node_;
  std::vector<Edge> edges_;
};

// Turns a plan into a patch.
class Mover {
 public:
  Mover(Graph& graph, const TransposeRegion& region, const Plan& plan, const TypeInference& types)
      : patch_(graph), graph_(graph), region_(region), plan_(plan), types_(types) {}

  Patch move() {
    const std::vector<Node*> nodes = graph_.nodes();
    for (Node* node : nodes) {
      if (!plan_.permuted.contains(node)) continue;
      if (const PermutedForm* form = region_.form(node))
        rebuild(*node, *form);
      else
        compose(*node);
    }
    for (Node* node : nodes) {
      if (plan_.permuted.contains(node))
        reconnect(*node);
      else
        reconnect_transpose(*node);
    }
    return std::move(patch_);
  }

 private:
  Role role(const Node& node) const { return role_of(node, region_, types_); }

  Patch::Ref transpose(Patch::Ref of, Permutation p, const Value& named_after) {
    if (is_identity(p)) return of;
    return patch_.node({.op_type = "Transpose",
                        .name = named_after.name() + "_transpose",
                        .inputs = {of},
                        .attributes = make_transpose(std::move(p)).attributes});
  }

  // Made only in its permuted form from now on.
  bool is_permuted(const Value& value) const {
    const Node* producer = value.producer();
    return producer && plan_.permuted.contains(producer) && region_.alternate(&value) &&
           (region_.makes(value) || !region_.form(producer));
  }

  // Transposes of it had better start from its permuted form.
  bool starts_permuted(const Value& value) const {
    return is_permuted(value) || (value.producer() && role(*value.producer()) == Role::source);
  }
  bool is_available_permuted(const Value& value) const {
    return permuted_.contains(&value) || starts_permuted(value);
  }

  // The value as it was.
  Patch::Ref original(Value* value) {
    if (value == nullptr || !value->producer() || &value->graph() != &graph_) return value;
    const auto found = originals_.find(value);
    if (found != originals_.end()) return found->second;
    return originals_.emplace(value, make_original(value)).first->second;
  }

  Patch::Ref make_original(Value* value) {
    if (is_permuted(*value))
      return transpose(permuted(value), inverse(*region_.alternate(value)), *value);
    const auto rebuilt = rebuilt_.find(value);
    if (rebuilt != rebuilt_.end()) return rebuilt->second;
    Node& producer = *value->producer();
    const Role known = role(producer);
    Value* input = producer.input(0);
    if (known == Role::target && is_available_permuted(*input)) return permuted(input);
    if ((known == Role::follows || known == Role::composes) && starts_permuted(*input))
      return transpose(
          permuted(input),
          composed(inverse(*region_.alternate(input)), permutation_of(producer, types_).value()),
          *value);
    return value;
  }

  // The value permuted.
  Patch::Ref permuted(Value* value) {
    const auto found = permuted_.find(value);
    if (found != permuted_.end()) return found->second;
    return permuted_.emplace(value, make_permuted(value)).first->second;
  }

  Patch::Ref make_permuted(Value* value) {
    const Permutation& p = *region_.alternate(value);
    if (const Tensor* constant = value->constant())
      return patch_.constant(value->name(), permuted_constant(*constant, p));
    if (value->producer() && role(*value->producer()) == Role::source)
      return original(value->producer()->input(0));
    return transpose(original(value), p, *value);
  }

  void rebuild(Node& node, const PermutedForm& form) {
    std::vector<Patch::Ref> inputs;
    for (std::size_t i = 0; i < node.input_count(); ++i)
      inputs.push_back(is_trivial(form.inputs[i]) ? original(node.input(i))
                                                  : permuted(node.input(i)));
    for (const auto& [index, tensor] : form.arguments) {
      if (inputs.size() <= index) inputs.resize(index + 1);
      const Value* old = node.input(index);
      inputs[index] = patch_.constant(old ? old->name() : node.output()->name() + "_axes", tensor);
    }
    ValueMap map;
    Patch::NodeTemplate made{.op_type = node.op_type(),
                             .name = node.name,
                             .inputs = std::move(inputs),
                             .outputs = node.output_count()};
    for (const auto& [name, attribute] : form.attributes)
      made.attributes.emplace(name, clone_attribute(attribute, &graph_, map));
    const Patch::Ref first = patch_.node(std::move(made));
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      Value* output = node.output(i);
      (is_trivial(form.outputs[i]) ? rebuilt_ : permuted_)[output] = patch_.output(first, i);
    }
  }

  // A Transpose followed by the permutation of its result.
  void compose(Node& node) {
    Value* input = node.input(0);
    Permutation p =
        composed(permutation_of(node, types_).value(), *region_.alternate(node.output()));
    const bool from_permuted = starts_permuted(*input);
    if (from_permuted) p = composed(inverse(*region_.alternate(input)), p);
    permuted_[node.output()] =
        transpose(from_permuted ? permuted(input) : original(input), p, *node.output());
  }

  bool is_read_as_it_was(const Value& value) const {
    return value.is_output() || std::ranges::any_of(value.uses(), [&](const Use& use) {
             if (plan_.permuted.contains(use.node)) return false;
             const Role known = role(*use.node);
             return !is_permuted(value) || known == Role::none || known == Role::source;
           });
  }

  // Readers of a node in its permuted form.
  void reconnect(Node& node) {
    for (Value* value : node.outputs())
      if (is_read_as_it_was(*value)) patch_.replace(value, original(value));
    patch_.remove_if_unread(&node);
  }

  // A Transpose that stays, goes, or starts from a value's permuted form.
  void reconnect_transpose(Node& node) {
    const Role known = role(node);
    if (known == Role::none) return;
    Value* output = node.output();
    const Patch::Ref made = known == Role::source ? Patch::Ref(output) : original(output);
    if (!(made == Patch::Ref(output))) patch_.replace(output, made);
    patch_.remove_if_unread(&node);
  }

  Patch patch_;
  Graph& graph_;
  const TransposeRegion& region_;
  const Plan& plan_;
  const TypeInference& types_;
  // Outputs of rebuilt nodes that come out as they did are in rebuilt_.
  std::unordered_map<const Value*, Patch::Ref> originals_, permuted_, rebuilt_;
};

// Where a region may grow from.
struct Seed {
  Node* transpose;
  Value* value;
  Permutation permutation;
};

class SinkTransposes : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = rule_name,
      .summary = "moves Transposes across other operators where they then cancel",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 50};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    LiveTypes types(model);
    std::int64_t moves = 0, removed = 0;
    model.for_each_graph([&](Graph& graph) {
      while (const int saved = improve(graph, types)) {
        ++moves;
        removed += saved;
      }
      if (context.near_misses) explain(graph, types.get(), *context.near_misses);
    });
    return {.changed = moves > 0, .counts = {{rule_name, moves}, {"transposes_removed", removed}}};
  }

 private:
  static std::vector<Seed> seeds(const Graph& graph, const TypeInference& types) {
    std::vector<Seed> found;
    for (Node* node : graph.nodes()) {
      const std::optional<Permutation> p = permutation_of(*node, types);
      if (!p || is_trivial(*p) || node->input(0)->constant()) continue;
      found.push_back({node, node->output(), inverse(*p)});
      found.push_back({node, node->input(0), *p});
    }
    return found;
  }

  static std::int64_t count(const Graph& graph) {
    return std::ranges::count_if(graph.nodes(),
                                 [](const Node* node) { return node->is("Transpose"); });
  }

  // Makes the first move that leaves fewer Transposes; how many fewer.
  static int improve(Graph& graph, LiveTypes& types) {
    std::set<std::pair<const Value*, Permutation>> tried;
    for (const Seed& seed : seeds(graph, types.get())) {
      if (tried.contains({seed.value, seed.permutation})) continue;
      TransposeRegion region(graph, types.get());
      region.grow(seed.value, seed.permutation);
      const Plan plan = Planner(region, types.get()).plan();
      if (plan.after < plan.before && !plan.permuted.empty()) {
        const std::int64_t before = count(graph);
        Patch patch = Mover(graph, region, plan, types.get()).move();
        types.note(patch.apply());
        const std::int64_t after = count(graph);
        require(after < before, "a move planned to leave {} Transposes for {} left {} for {}",
                plan.after, plan.before, after, before);
        return static_cast<int>(before - after);
      }
      for (const Value* value : region.values()) tried.emplace(value, *region.alternate(value));
    }
    return 0;
  }

  static void explain(Graph& graph, const TypeInference& types, std::vector<NearMiss>& misses) {
    for (const Seed& seed : seeds(graph, types)) {
      if (seed.value != seed.transpose->output()) continue;
      TransposeRegion region(graph, types);
      region.grow(seed.value, seed.permutation);
      misses.push_back({rule_name, seed.transpose->describe(), obstacle(region)});
    }
  }

  static std::string obstacle(const TransposeRegion& region) {
    for (const Value* value : region.values()) {
      if (value->is_output())
        return fmt::format("its order of axes is that of output '{}'", value->name());
      for (const Use& use : value->uses())
        if (!region.reads(use))
          return fmt::format("{} reads '{}' in this order of axes", use.node->describe(),
                             value->name());
    }
    return "moving it would leave no fewer Transposes";
  }
};

}  // namespace

PASS(sink_transposes) { registry.add(std::make_unique<SinkTransposes>()); }

}  // namespace onnxpress
