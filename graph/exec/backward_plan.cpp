#include "graph/exec/backward_plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "graph/exec/gradients.h"

namespace onnxpress {
namespace {

using ValueSet = std::unordered_set<const Value*>;

// What a node reads, values captured by its subgraphs included.
std::vector<const Value*> values_read(const Node& node) {
  std::vector<const Value*> found;
  for (const Value* input : node.inputs())
    if (input) found.push_back(input);
  for (const Value* captured : node.captured()) found.push_back(captured);
  return found;
}

bool is_quantize(const Node& node) {
  return node.is("QuantizeLinear") || node.is("QuantizeLinear", "com.microsoft");
}

// The differentiated inputs that `node` depends on, by name.
std::vector<std::string> parameters_before(const Graph& graph, const Node& last,
                                           const ValueSet& wanted) {
  ValueSet reached;
  for (const Value* value : values_read(last)) reached.insert(value);
  bool is_before = false;
  const std::vector<Node*> nodes = graph.nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    is_before = is_before || *node == &last;
    const std::vector<Value*> outputs = (*node)->outputs();
    if (!is_before || std::ranges::none_of(outputs, [&](const Value* output) {
          return output && reached.contains(output);
        }))
      continue;
    for (const Value* value : values_read(**node)) reached.insert(value);
  }
  std::set<std::string> names;
  for (const Value* value : wanted)
    if (reached.contains(value)) names.insert(value->name());
  return {names.begin(), names.end()};
}

std::string list_of(const std::vector<std::string>& names) {
  constexpr std::size_t most_named = 5;
  const std::size_t count = std::min(names.size(), most_named);
  const std::string text =
      fmt::format("'{}'", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(count), "', '"));
  return names.size() > count ? fmt::format("{} and {} more", text, names.size() - count) : text;
}

}  // namespace

std::unique_ptr<BackwardPlan> BackwardPlan::make(const Model& model, const KnownInputs& known,
                                                 const ValueSet& wanted, const Value& loss,
                                                 const EngineResources& resources, bool recompute) {
  std::unique_ptr<BackwardPlan> plan(new BackwardPlan(model, recompute));
  for (const auto& [value, input] : known) plan->inference_->set_input(value, input.type);
  plan->inference_->run(model.graph);
  plan->add_steps(model.graph, wanted, loss, resources);
  return plan;
}

// Codes of a quantized tensor carry the gradient of what was quantized: straight through.
bool BackwardPlan::carries_gradient(const Value& value) const {
  const Type& type = inference_->type(&value);
  if (type.is_tensor() && is_float(type.elem)) return true;
  return value.producer() && is_quantize(*value.producer());
}

std::size_t BackwardPlan::number(const Value& value) {
  const auto [found, is_new] = number_of_.try_emplace(&value, values.size());
  if (!is_new) return found->second;
  const Type& type = inference_->type(&value);
  BackwardValue entry{.value = &value, .gradient_type = type.elem};
  if (value.producer() && is_quantize(*value.producer()))
    entry.gradient_type = inference_->type(value.producer()->input(0)).elem;
  if (type.is_tensor() && type.shape) entry.dims = concrete(*type.shape);
  const auto inputs = value.graph().inputs();
  const auto input = std::ranges::find(inputs, &value);
  if (input != inputs.end()) {
    entry.is_given = true;
    entry.given = static_cast<std::size_t>(input - inputs.begin());
  }
  values.push_back(std::move(entry));
  return found->second;
}

BackwardStep BackwardPlan::describe(const Node& node, const EngineResources& resources) {
  BackwardStep step{.node = &node};
  for (const Value* input : node.inputs()) step.inputs.push_back(input ? number(*input) : no_slot);
  for (const Value* output : node.outputs()) step.outputs.push_back(output ? number(*output) : no_slot);
  const auto type_of = [inference = inference_.get()](const Value& value) -> const Type* {
    return &inference->type(&value);
  };
  const auto constant_of = [inference = inference_.get()](const Value& value) -> const Tensor* {
    return value.is_input() ? nullptr : inference->known_value(&value);
  };
  step.preparation = std::make_unique<NodePreparation>(node, type_of, constant_of, resources.threads);
  return step;
}

BackwardStep BackwardPlan::prepare(const Node& node, const ValueSet& needed,
                                   const EngineResources& resources, std::uint64_t& reads_inputs,
                                   std::uint64_t& reads_outputs) {
  BackwardStep step = describe(node, resources);
  std::uint64_t wanted = 0;
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    const Value* input = node.input(i);
    step.wanted.push_back(input && needed.contains(input));
    if (step.wanted.back() && i < 64) wanted |= std::uint64_t{1} << i;
  }
  for (const GradientDef* row : operators().gradients(node)) {
    if (resources.reference && row->backend != "reference") continue;
    if (row->supports && !row->supports(*step.preparation)) continue;
    step.kernel = row->prepare(*step.preparation);
    step.backend = row->backend;
    step.overwrites = row->backend == "vector";
    reads_inputs = row->inputs_read(wanted);
    reads_outputs = row->reads_outputs;
    break;
  }
  return step;
}

void BackwardPlan::add_steps(const Graph& graph, const ValueSet& wanted, const Value& minimized,
                             const EngineResources& resources) {
  const std::vector<Node*> nodes = graph.nodes();
  ValueSet needed = wanted;  // values whose gradient leads to a wanted one
  for (const Node* node : nodes) {
    if (std::ranges::none_of(values_read(*node),
                             [&](const Value* value) { return needed.contains(value); }))
      continue;
    for (const Value* output : node->outputs())
      if (output && carries_gradient(*output)) needed.insert(output);
  }
  differentiated.assign(graph.inputs().size(), no_slot);
  if (!needed.contains(&minimized)) return;
  loss = number(minimized);

  ValueSet reached = {&minimized};  // values that the loss follows
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    const std::vector<Value*> outputs = (*node)->outputs();
    const auto is_on_the_way = [&](const Value* output) {
      return output && reached.contains(output) && needed.contains(output);
    };
    if (std::ranges::none_of(outputs, is_on_the_way)) continue;
    std::uint64_t reads_inputs = 0, reads_outputs = 0;
    BackwardStep step = in_context([&] { return (*node)->describe(); }, [&] {
      return prepare(**node, needed, resources, reads_inputs, reads_outputs);
    });
    if (!step.kernel)
      throw NoGradient(fmt::format("{}: no gradient for {} (version {}): freeze what is trained before it: {}",
                                   (*node)->describe(), (*node)->op_type(), (*node)->opset(),
                                   list_of(parameters_before(graph, **node, wanted))));
    const auto read_all = [&](const std::vector<std::size_t>& indices, std::uint64_t mask) {
      for (std::size_t i = 0; i < indices.size(); ++i)
        if (indices[i] != no_slot && (i >= 64 || (mask >> i & 1) != 0)) read(step, indices[i], resources);
    };
    read_all(step.inputs, reads_inputs);
    read_all(step.outputs, reads_outputs);
    for (std::size_t i = 0; i < step.inputs.size(); ++i) {
      if (!step.wanted[i]) continue;
      reached.insert(values[step.inputs[i]].value);
      if (!values[step.inputs[i]].dims) read(step, step.inputs[i], resources);
    }
    steps.push_back(std::move(step));
  }
  if (!values[loss].dims) keep(loss);

  for (BackwardValue& value : values)
    if (value.is_recomputed) value.saved = kept.size() + recomputed++;
  add_releases();
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
    const Value* input = graph.inputs()[i];
    if (wanted.contains(input) && reached.contains(input)) differentiated[i] = number(*input);
  }
}

void BackwardPlan::keep(std::size_t index) {
  BackwardValue& value = values[index];
  if (value.is_given || value.saved != no_slot) return;
  value.saved = kept.size();
  kept.push_back(value.value);
}

void BackwardPlan::read(BackwardStep& step, std::size_t index, const EngineResources& resources) {
  if (values[index].is_given) return;
  if (recompute_ && values[index].saved == no_slot && is_cheap(*values[index].value))
    recompute(index, resources);
  else
    keep(index);
  step.reads.push_back(index);
}

void BackwardPlan::add_releases() {
  std::vector<bool> is_read(values.size(), false);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step)
    for (const std::size_t index : step->reads)
      if (!is_read[index]) {
        is_read[index] = true;
        step->release.push_back(index);
      }
}

}  // namespace onnxpress
