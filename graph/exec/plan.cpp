#include "graph/exec/plan.h"

#include <algorithm>
#include <utility>

#include "graph/exec/arena.h"
#include "graph/exec/prepare.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

// Results of constants alone are kept for observers up to this many bytes even when no step reads
// them.
constexpr std::size_t small_constant = 4096;

// Operators whose kernels forward their first input as their first output when both have one
// element type.
bool forwards_first_input(const Node& node) {
  static constexpr std::string_view names[] = {"Identity",  "Reshape", "Flatten", "Squeeze",
                                               "Unsqueeze", "Dropout", "Cast",    "CastLike"};
  return node.domain().empty() && std::ranges::find(names, node.op_type()) != std::end(names);
}

class Planner {
 public:
  Planner(const Model& model, const Graph& graph, EngineResources& resources)
      : graph_(graph),
        resources_(resources),
        inference_(model, {.use_declared = false}),
        plan_(std::make_unique<GraphPlan>()) {}

  std::unique_ptr<GraphPlan> make(const KnownInputs& known,
                                  std::span<const Value* const> captured) {
    add_given(known, captured);
    infer(known);
    for (const Node* node : graph_.nodes())
      in_context([&] { return node->describe(); }, [&] { add_node(*node); });
    for (const Value* output : graph_.outputs()) plan_->outputs.push_back(slot(*output));
    drop_unneeded();
    for (PlanStep& step : plan_->steps)
      in_context([&] { return step.node->describe(); }, [&] { prepare(step); });
    assign_memory();
    drop_unread_constants();
    return std::move(plan_);
  }

 private:
  void add_given(const KnownInputs& known, std::span<const Value* const> captured) {
    for (const Value* input : graph_.inputs()) {
      if (input->initializer()) continue;  // overridable: the default is used
      plan_->inputs.push_back(add_slot(*input, Slot::Source::given));
    }
    for (const Value* value : captured) {
      const Tensor* constant = known.at(value).constant;
      plan_->captured.push_back(constant ? add_constant(*value, *constant)
                                         : add_slot(*value, Slot::Source::given));
    }
    for (const Value* value : graph_.initializers())
      add_constant(*value, value->initializer()->dense());
  }

  void infer(const KnownInputs& known) {
    for (const auto& [value, input] : known) {
      if (input.constant)
        inference_.set_input_value(value, *input.constant);
      else
        inference_.set_input(value, input.type);
    }
    for (const Value* input : graph_.inputs())
      if (input->initializer()) inference_.set_input_value(input, input->initializer()->dense());
    inference_.run(graph_);
    for (Slot& given : plan_->slots)
      if (given.source == Slot::Source::given) given.type = inference_.type(given.value);
  }

  std::size_t add_slot(const Value& value, Slot::Source source) {
    const std::size_t index = plan_->slots.size();
    plan_->slots.push_back({.value = &value, .source = source});
    slot_of_[&value] = index;
    return index;
  }

  std::size_t add_constant(const Value& value, const Tensor& tensor) {
    const std::size_t index = add_slot(value, Slot::Source::constant);
    plan_->slots[index].type = Type::of(tensor);
    plan_->slots[index].constant = tensor;
    return index;
  }

  std::size_t slot(const Value& value) const {
    const auto found = slot_of_.find(&value);
    require(found != slot_of_.end(), "value '{}' is read before it is produced", value.name());
    return found->second;
  }

  const Tensor* constant(const Value& value) const {
    const auto found = slot_of_.find(&value);
    if (found == slot_of_.end()) return nullptr;
    const Slot& known = plan_->slots[found->second];
    return known.source == Slot::Source::constant ? &known.constant : nullptr;
  }

  const Type* type(const Value& value) const {
    const auto found = slot_of_.find(&value);
    return found == slot_of_.end() ? nullptr : &plan_->slots[found->second].type;
  }

  void add_node(const Node& node) {
    PlanStep step;
    step.node = &node;
    for (const Value* input : node.inputs()) step.inputs.push_back(input ? slot(*input) : no_slot);
    if (!add_known(node, step) && !fold(node, step)) add_step(node, step);
    plan_->steps.push_back(std::move(step));
  }

  // True when inference knows the contents of every output.
  bool add_known(const Node& node, PlanStep& step) {
    const auto is_known = [&](const Value* output) {
      return !output || inference_.known_value(output);
    };
    const std::vector<Value*> outputs = node.outputs();
    const OpDef* op = operators().find(node);
    if (!op || !op->deterministic || !std::ranges::all_of(outputs, is_known)) return false;
    const bool keep = is_from_initializers(node);
    for (const Value* output : outputs) {
      const Tensor* known = output ? inference_.known_value(output) : nullptr;
      if (known && keep) resources_.folded.emplace(output, *known);
      step.outputs.push_back(known ? add_constant(*output, *known) : no_slot);
    }
    return true;
  }

  // True when the results are the same whatever the inputs of the model are.
  bool is_from_initializers(const Node& node) const {
    return node.subgraphs().empty() && std::ranges::all_of(node.inputs(), [&](const Value* input) {
             return !input || input->is_constant() || resources_.folded.contains(input);
           });
  }

  // True when the node's inputs are constants: then its outputs are computed here.
  bool fold(const Node& node, PlanStep& step) {
    const OpDef* op = operators().find(node);
    if (!op || !op->prepare || !op->deterministic || !node.subgraphs().empty()) return false;
    if (!gives_tensors(node)) return false;
    std::vector<const Tensor*> inputs;
    for (const Value* input : node.inputs()) {
      const Tensor* tensor = input ? constant(*input) : nullptr;
      if (input && !tensor) return false;
      inputs.push_back(tensor);
    }
    const bool from_initializers = is_from_initializers(node);
    std::vector<Tensor> outputs(node.output_count());
    bool cached = from_initializers;
    for (std::size_t i = 0; i < outputs.size() && cached; ++i) {
      if (!node.output(i)) continue;
      const auto found = resources_.folded.find(node.output(i));
      cached = found != resources_.folded.end();
      if (cached) outputs[i] = found->second;
    }
    if (!cached) outputs = evaluate(*op, node, inputs, resources_.pool);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const Value* output = node.output(i);
      if (output && from_initializers) resources_.folded.emplace(output, outputs[i]);
      step.outputs.push_back(output ? add_constant(*output, outputs[i]) : no_slot);
    }
    return true;
  }

  // False for operators that make sequences and optionals: constants are tensors.
  bool gives_tensors(const Node& node) const {
    return std::ranges::all_of(node.outputs(), [&](const Value* output) {
      if (!output) return true;
      const Type::Kind kind = inference_.type(output).kind;
      return kind == Type::Kind::tensor || kind == Type::Kind::unknown;
    });
  }

  void add_step(const Node& node, PlanStep& step) {
    for (const Value* output : node.outputs()) {
      if (!output) {
        step.outputs.push_back(no_slot);
        continue;
      }
      const std::size_t index = add_slot(*output, Slot::Source::pool);
      plan_->slots[index].type = inference_.type(output);
      step.outputs.push_back(index);
    }
    const std::vector<Value*> captured = node.captured();
    for (const auto& [name, attribute] : node.attributes()) {
      const auto* subgraph = std::get_if<std::unique_ptr<Graph>>(&attribute.value);
      if (!subgraph) continue;
      SubgraphPlans& plans = step.subgraphs[name];
      plans.graph = subgraph->get();
      for (const Value* value : captured) plans.captured.push_back(slot(*value));
    }
  }

  bool is_executed(const PlanStep& step) const {
    return std::ranges::any_of(step.outputs, [&](std::size_t output) {
      return output != no_slot && plan_->slots[output].source != Slot::Source::constant;
    });
  }

  template <class Visit>
  static void for_each_read(const PlanStep& step, const Visit& visit) {
    for (std::size_t input : step.inputs)
      if (input != no_slot) visit(input);
    for (const auto& [name, subgraph] : step.subgraphs)
      for (std::size_t captured : subgraph.captured) visit(captured);
  }

  // Steps that no output depends on are not executed.
  void drop_unneeded() {
    needed_.assign(plan_->slots.size(), false);
    for (std::size_t output : plan_->outputs) needed_[output] = true;
    std::vector<PlanStep> kept;
    for (auto step = plan_->steps.rbegin(); step != plan_->steps.rend(); ++step) {
      const bool executed = is_executed(*step);
      const bool read = std::ranges::any_of(
          step->outputs, [&](std::size_t output) { return output != no_slot && needed_[output]; });
      if (executed && !read) continue;
      if (executed) for_each_read(*step, [&](std::size_t input) { needed_[input] = true; });
      kept.push_back(std::move(*step));
    }
    std::ranges::reverse(kept);
    plan_->steps = std::move(kept);
  }

  void prepare(PlanStep& step) {
    if (!is_executed(step)) return;
    const NodePreparation context(
        *step.node, [this](const Value& value) { return type(value); },
        [this](const Value& value) { return constant(value); }, resources_.threads);
    const OpDef* op = operators().find(*step.node);
    require(op && op->prepare, "no kernel for version {}", step.node->opset());
    if (op->cost && has_static_types(*step.node)) step.macs = op->cost(context).macs;
    if (!resources_.reference)
      for (const KernelDef* fast : operators().kernels(*step.node))
        if (fast->supports(context)) {
          step.kernel = fast->prepare(context);
          step.backend = fast->backend;
          return;
        }
    step.kernel = op->prepare(context);
    step.backend = "reference";
  }

  bool has_static_types(const Node& node) const {
    const auto is_static = [&](const Value* value) {
      if (!value) return true;
      const Type* known = type(*value);
      return known && known->is_tensor() && known->shape && concrete(*known->shape);
    };
    return std::ranges::all_of(node.inputs(), is_static) &&
           std::ranges::all_of(node.outputs(), is_static);
  }

  std::size_t storage_root(std::size_t index) const {
    while (plan_->slots[index].source == Slot::Source::alias) index = plan_->slots[index].root;
    return index;
  }

  void assign_memory() {
    std::vector<Slot>& slots = plan_->slots;
    std::vector<std::size_t> first(slots.size(), no_slot), last(slots.size(), 0);
    for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
      const PlanStep& step = plan_->steps[i];
      if (!step.kernel) continue;
      for_each_read(step, [&](std::size_t input) { last[input] = i; });
      for (std::size_t output : step.outputs)
        if (output != no_slot) first[output] = last[output] = i;
      const std::size_t input = step.inputs.empty() ? no_slot : step.inputs[0];
      const std::size_t output = step.outputs[0];
      if (input != no_slot && output != no_slot && forwards_first_input(*step.node) &&
          slots[input].type.elem == slots[output].type.elem) {
        slots[output].source = Slot::Source::alias;
        slots[output].root = input;
      }
    }
    std::vector<bool> is_output(slots.size(), false);
    for (std::size_t output : plan_->outputs) is_output[output] = true;
    add_releases(last, is_output);

    for (std::size_t i = slots.size(); i-- > 0;) {
      if (slots[i].source != Slot::Source::alias) continue;
      const std::size_t root = storage_root(i);
      last[root] = std::max(last[root], last[i]);
      if (is_output[i]) is_output[root] = true;
    }

    std::vector<Lifetime> lifetimes;
    std::vector<std::size_t> planned;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots[i];
      if (slot.source != Slot::Source::pool || first[i] == no_slot) continue;
      const auto dims =
          slot.type.is_tensor() && slot.type.shape ? concrete(*slot.type.shape) : std::nullopt;
      const bool is_static = dims && slot.type.elem != DType::string && is_known(slot.type.elem);
      if (!is_static) ++plan_->dynamic_values;
      if (!is_static || is_output[i]) continue;
      slot.source = Slot::Source::arena;
      slot.bytes = packed_bytes(slot.type.elem, static_cast<std::size_t>(element_count(*dims)));
      plan_->unshared_bytes += slot.bytes;
      lifetimes.push_back({.bytes = slot.bytes, .first = first[i], .last = last[i]});
      planned.push_back(i);
    }
    const ArenaLayout layout = plan_arena(lifetimes);
    for (std::size_t i = 0; i < planned.size(); ++i) slots[planned[i]].offset = layout.offsets[i];
    plan_->arena_bytes = layout.bytes;
  }

  // Which tensors go after which step; an alias goes after its own last use.
  void add_releases(const std::vector<std::size_t>& last, const std::vector<bool>& is_output) {
    std::vector<bool> seen(plan_->slots.size(), false);
    const auto release = [&](std::size_t index, std::size_t step) {
      if (seen[index] || is_output[index] || last[index] != step ||
          plan_->slots[index].source == Slot::Source::constant)
        return;
      seen[index] = true;
      plan_->steps[step].release.push_back(index);
    };
    for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
      if (!plan_->steps[i].kernel) continue;
      for_each_read(plan_->steps[i], [&](std::size_t input) { release(input, i); });
      for (std::size_t output : plan_->steps[i].outputs)
        if (output != no_slot) release(output, i);
    }
  }

  void drop_unread_constants() {
    for (std::size_t i = 0; i < plan_->slots.size(); ++i) {
      Slot& slot = plan_->slots[i];
      if (slot.source != Slot::Source::constant || needed_[i]) continue;
      if (slot.value->is_constant() || slot.constant.byte_size() > small_constant) {
        slot.constant = Tensor();
        resources_.folded.erase(slot.value);
      }
    }
  }

  const Graph& graph_;
  EngineResources& resources_;
  TypeInference inference_;
  std::unique_ptr<GraphPlan> plan_;
  std::unordered_map<const Value*, std::size_t> slot_of_;
  std::vector<bool> needed_;
};

}  // namespace

std::unique_ptr<GraphPlan> make_plan(const Model& model, const Graph& graph,
                                     const KnownInputs& known,
                                     std::span<const Value* const> captured,
                                     EngineResources& resources) {
  return Planner(model, graph, resources).make(known, captured);
}

}  // namespace onnxpress
