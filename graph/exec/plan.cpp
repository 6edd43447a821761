#include "graph/exec/plan.h"

#include <algorithm>
#include <utility>

#include "graph/exec/prepare.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/ops/channel_affine.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

// Results of constants alone are kept for observers up to this many bytes even when no step reads
// them.
constexpr std::size_t small_constant = 4096;

class Planner {
 public:
  Planner(const Model& model, const Graph& graph, EngineResources& resources)
      : graph_(graph),
        resources_(resources),
        inference_(model, {.use_declared = false}),
        plan_(std::make_unique<GraphPlan>()) {}

  std::unique_ptr<GraphPlan> make(const KnownInputs& known, std::span<const Value* const> captured,
                                  bool fuse, std::span<const Value* const> kept) {
    plan_->is_fused = fuse;
    add_given(known, captured);
    infer(known);
    for (const Node* node : graph_.nodes())
      in_context([&] { return node->describe(); }, [&] { add_node(*node); });
    for (const Value* output : graph_.outputs()) plan_->outputs.push_back(slot(*output));
    for (const Value* value : kept) plan_->outputs.push_back(slot(*value));
    if (fuse && resources_.kept)
      for (Slot& made : plan_->slots) made.is_kept = resources_.kept(*made.value);
    drop_unneeded_steps(*plan_, fuse);
    if (fuse) {
      quantize_steps(*plan_);
      fold_steps();
      scale_integer_steps(*plan_);
      recognize_steps(*plan_);
      fuse_steps(*plan_, resources_.pool);
      assign_layouts(*plan_);
    }
    count_readers();
    for (PlanStep& step : plan_->steps)
      in_context([&] { return step.node->describe(); }, [&] { prepare(step); });
    assign_memory(*plan_);
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
    if (is_deferred(node) || (!add_known(node, step) && !fold(node, step))) add_step(node, step);
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
    if (resources_.lean && gives_much(node)) return false;
    std::vector<const Tensor*> inputs;
    for (const Value* input : node.inputs()) {
      const Tensor* tensor = input ? constant(*input) : nullptr;
      if (input && !tensor) return false;
      inputs.push_back(tensor);
    }
    const std::vector<Tensor> outputs = results(*op, node, inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const Value* output = node.output(i);
      step.outputs.push_back(output ? add_constant(*output, outputs[i]) : no_slot);
    }
    return true;
  }

  // What the node gives for these constants; what comes from initializers alone is kept for other
  // plans.
  std::vector<Tensor> results(const OpDef& op, const Node& node,
                              std::span<const Tensor* const> inputs) {
    const bool from_initializers = is_from_initializers(node);
    std::vector<Tensor> outputs(node.output_count());
    bool cached = from_initializers;
    for (std::size_t i = 0; i < outputs.size() && cached; ++i) {
      if (!node.output(i)) continue;
      const auto found = resources_.folded.find(node.output(i));
      cached = found != resources_.folded.end();
      if (cached) outputs[i] = found->second;
    }
    if (!cached) outputs = evaluate(op, node, inputs, resources_.pool);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (node.output(i) && from_initializers)
        resources_.folded.emplace(node.output(i), outputs[i]);
    return outputs;
  }

  // Fused steps may read weights as they are quantized.
  bool is_deferred(const Node& node) const {
    return plan_->is_fused && node.is("DequantizeLinear");
  }

  // Computes the deferred steps that are still there, and those that have waited for them.
  void fold_steps() {
    for (const PlanStep& step : plan_->steps) {
      const OpDef* op = operators().find(*step.node);
      if (!op || !op->prepare || !op->deterministic || !step.subgraphs.empty() ||
          step.node->output_count() != step.outputs.size() || !gives_tensors(*step.node))
        continue;
      std::vector<const Tensor*> inputs;
      bool are_constant = true;
      for (const std::size_t input : step.inputs) {
        are_constant = are_constant &&
                       (input == no_slot || plan_->slots[input].source == Slot::Source::constant);
        inputs.push_back(input == no_slot ? nullptr : &plan_->slots[input].constant);
      }
      if (!are_constant) continue;
      std::vector<Tensor> outputs;
      in_context([&] { return step.node->describe(); },
                 [&] { outputs = results(*op, *step.node, inputs); });
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        if (step.outputs[i] == no_slot) continue;
        Slot& slot = plan_->slots[step.outputs[i]];
        slot.source = Slot::Source::constant;
        slot.type = Type::of(outputs[i]);
        slot.constant = std::move(outputs[i]);
      }
    }
    drop_unneeded_steps(*plan_, true);
  }

  bool gives_much(const Node& node) const {
    return std::ranges::any_of(node.outputs(), [&](const Value* output) {
      if (!output) return false;
      const Type& type = inference_.type(output);
      const std::optional<Dims> dims = type.is_tensor() && type.shape ? concrete(*type.shape) : std::nullopt;
      return dims && is_known(type.elem) &&
             packed_bytes(type.elem, static_cast<std::size_t>(element_count(*dims))) > large_constant;
    });
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

  void prepare(PlanStep& step) {
    if (!is_executed(*plan_, step) || step.kernel) return;
    for (const std::size_t input : step.inputs)
      if (input != no_slot && plan_->slots[input].scaled) compute_scaled(plan_->slots[input]);
    const StepPreparation context(*plan_, step, resources_.threads);
    const OpDef* op = operators().find(*step.node);
    require(op && op->prepare, "no kernel for version {}", step.node->opset());
    if (op->cost && has_static_types(step)) step.macs = op->cost(context).macs;
    if (resources_.lean && !resources_.reference &&
        prepare_fast(step, StepPreparation(*plan_, step, resources_.threads, large_constant)))
      return;
    if (!resources_.reference && prepare_fast(step, context)) return;
    step.kernel = op->prepare(context);
    step.backend = "reference";
  }

  // Whether a fast kernel takes the step.
  bool prepare_fast(PlanStep& step, const StepPreparation& context) {
    for (const KernelDef* fast : operators().kernels(*step.node)) {
      if (!fast->supports(context)) continue;
      step.kernel = fast->prepare(context);
      step.backend = fast->backend;
      drop_packed(step, context.packed_inputs());
      return true;
    }
    return false;
  }

  void compute_scaled(Slot& slot) {
    const ScaledWeights& scaled = *slot.scaled;
    const std::size_t source = scaled.source;
    const Tensor& weights = plan_->slots[source].constant;
    slot.constant = scale_slices(weights, scaled.axis, scaled.factors);
    slot.scaled = nullptr;
    drop_read(source);
  }

  // One of the readers of a constant is done with it: pages of mapped files go, and with the last
  // reader the tensor.
  void drop_read(std::size_t index) {
    Slot& slot = plan_->slots[index];
    release_pages(slot.constant.bytes());
    if (--readers_[index] > 0) return;
    slot.constant = Tensor();
    resources_.folded.erase(slot.value);
  }

  void count_readers() {
    readers_.assign(plan_->slots.size(), 0);
    for (std::size_t output : plan_->outputs) ++readers_[output];
    for (const PlanStep& step : plan_->steps)
      for_each_read(step, [&](std::size_t input) { ++readers_[input]; });
    for (const Slot& slot : plan_->slots)
      if (slot.scaled) ++readers_[slot.scaled->source];
  }

  // Kernels hold these constants in a form of their own: ours go, and the pages of mapped files.
  void drop_packed(PlanStep& step, const std::vector<std::size_t>& packed) {
    for (std::size_t input : packed) {
      if (input >= step.inputs.size() || step.inputs[input] == no_slot) continue;
      if (plan_->slots[step.inputs[input]].source != Slot::Source::constant) continue;
      drop_read(step.inputs[input]);
      step.inputs[input] = no_slot;
    }
  }

  bool has_static_types(const PlanStep& step) const {
    const auto is_static = [&](std::size_t index) {
      return index == no_slot || plan_->slots[index].dims();
    };
    return std::ranges::all_of(step.inputs, is_static) &&
           std::ranges::all_of(step.outputs, is_static);
  }

  // Contents that are not read again: of folded steps, and those that kernels packed.
  void drop_unread_constants() {
    std::vector<bool> is_read(plan_->slots.size(), false);
    for (std::size_t output : plan_->outputs) is_read[output] = true;
    for (const PlanStep& step : plan_->steps)
      if (step.kernel) for_each_read(step, [&](std::size_t input) { is_read[input] = true; });
    for (std::size_t i = 0; i < plan_->slots.size(); ++i) {
      Slot& slot = plan_->slots[i];
      if (slot.source != Slot::Source::constant || is_read[i]) continue;
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
  std::vector<std::size_t> readers_;  // by slot
};

}  // namespace

std::unique_ptr<GraphPlan> make_plan(const Model& model, const Graph& graph,
                                     const KnownInputs& known,
                                     std::span<const Value* const> captured,
                                     EngineResources& resources, bool fuse,
                                     std::span<const Value* const> kept) {
  return Planner(model, graph, resources).make(known, captured, fuse, kept);
}

}  // namespace onnxpress
