// If, Loop, Scan.
#include "graph/ops/control_flow.h"

#include <algorithm>
#include <limits>

#include "graph/ops/attributes.h"
#include "graph/ops/pieces.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// What holds for a value that has either type.
Type either(const Type& a, const Type& b) {
  if (a.kind != b.kind || a.elem != b.elem) return {};
  if (a.inner && b.inner && *a.inner != *b.inner)
    return {.kind = a.kind, .inner = std::make_shared<const Type>(either(*a.inner, *b.inner))};
  std::optional<Shape> shape;
  if (a.shape && b.shape && a.shape->size() == b.shape->size()) {
    shape = a.shape;
    for (std::size_t i = 0; i < shape->size(); ++i)
      if (!same_dim((*shape)[i], (*b.shape)[i])) (*shape)[i] = Dim();
  }
  return {.kind = a.kind, .elem = a.elem, .shape = std::move(shape), .inner = a.inner};
}

bool truth(const Tensor& condition) {
  require(condition.size() == 1, "expected one condition, found {}", to_string(condition.dims()));
  return condition.data<bool>()[0];
}

// --- If ---

std::string_view branch_name(bool condition) { return condition ? "then_branch" : "else_branch"; }

Kernel prepare_if(const PrepareContext&) {
  return [](KernelContext& context) {
    const bool taken = truth(context.required_input(0));
    std::vector<RuntimeValue> results =
        context.run_subgraph(branch_name(taken), {});
    for (std::size_t i = 0; i < results.size(); ++i)
      if (context.wants_output(i)) context.forward_value(i, std::move(results[i]));
  };
}

// A condition that is known leaves the other branch alone: it may not fit this model's inputs.
void infer_if(InferContext& context) {
  std::vector<Type> types;
  if (const Tensor* condition = context.input_value(0)) {
    types = context.infer_subgraph(branch_name(truth(*condition)), {});
  } else {
    types = context.infer_subgraph("then_branch", {});
    const std::vector<Type> others = context.infer_subgraph("else_branch", {});
    require(types.size() == others.size(),
            "expected branches with as many outputs, found {} and {}", types.size(), others.size());
    for (std::size_t i = 0; i < types.size(); ++i) types[i] = either(types[i], others[i]);
  }
  for (std::size_t i = 0; i < types.size(); ++i) context.set_output(i, std::move(types[i]));
}

// --- One step of an input, and the steps of an output ---

Tensor take_step(const Tensor& tensor, std::size_t axis, std::int64_t index) {
  Dims dims = tensor.dims();
  dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
  return take(tensor, axis, index, 1).reshaped(std::move(dims));
}

// The outputs of all steps along a new axis, which may be counted from the end. Without a step they
// have the dims that are `declared` of one and those that shape rules know of the result, `inferred`;
// others are 0.
Tensor stack_steps(const std::vector<Tensor>& steps, std::int64_t axis, const Type& declared,
                   const Type& inferred = {}) {
  if (!steps.empty())
    return stack(steps, static_cast<std::size_t>(normalize_axis(axis, steps[0].rank() + 1)));
  require(declared.is_tensor() && declared.shape,
          "a loop that runs no step needs a declared output shape");
  Dims dims;
  for (const Dim& dim : *declared.shape) dims.push_back(dim.is_known() ? dim.value() : 0);
  const std::int64_t at = normalize_axis(axis, dims.size() + 1);
  dims.insert(dims.begin() + at, 0);
  if (inferred.is_tensor() && inferred.shape && inferred.shape->size() == dims.size())
    for (std::size_t i = 0; i < dims.size(); ++i)
      if (const Dim& dim = (*inferred.shape)[i]; std::cmp_not_equal(i, at) && dim.is_known())
        dims[i] = dim.value();
  return Tensor(declared.elem, std::move(dims));
}

// What shape rules know of the outputs.
std::vector<Type> inferred_outputs(const PrepareContext& context) {
  std::vector<Type> types(context.node().output_count());
  for (std::size_t i = 0; i < types.size(); ++i)
    if (const Type* type = context.output_type(i)) types[i] = *type;
  return types;
}

// --- Loop ---

Kernel prepare_loop(const PrepareContext& prepare) {
  return [&node = prepare.node(), inferred = inferred_outputs(prepare)](KernelContext& context) {
    const Graph& body = loop_body(node);
    const std::size_t carried = context.input_count() > 2 ? context.input_count() - 2 : 0;
    require(body.outputs().size() > carried, "expected a body with more than {} outputs, found {}",
            carried, body.outputs().size());
    std::int64_t trips = std::numeric_limits<std::int64_t>::max();
    if (const Tensor* limit = context.input(0)) {
      require(limit->size() == 1, "expected one trip count, found {}", to_string(limit->dims()));
      trips = limit->to_ints()[0];
    }
    std::vector<RuntimeValue> inputs{Tensor(), Tensor::scalar(true)};
    if (const Tensor* condition = context.input(1)) inputs[1] = Tensor::scalar(truth(*condition));
    for (std::size_t i = 0; i < carried; ++i) inputs.push_back(context.required_input_value(i + 2));
    std::vector<std::vector<Tensor>> stacks(body.outputs().size() - 1 - carried);
    for (std::int64_t trip = 0; trip < trips && truth(inputs[1].tensor()); ++trip) {
      inputs[0] = Tensor::scalar(trip);
      std::vector<RuntimeValue> results = context.run_subgraph("body", inputs);
      for (std::size_t i = 0; i <= carried; ++i) inputs[i + 1] = std::move(results[i]);
      for (std::size_t i = 0; i < stacks.size(); ++i)
        stacks[i].push_back(std::move(results[i + 1 + carried]).tensor());
    }
    for (std::size_t i = 0; i < carried; ++i)
      if (context.wants_output(i)) context.forward_value(i, std::move(inputs[i + 2]));
    for (std::size_t i = 0; i < stacks.size(); ++i)
      if (context.wants_output(carried + i))
        context.forward_output(carried + i,
                               stack_steps(stacks[i], 0, body.outputs()[i + 1 + carried]->type,
                                           inferred[carried + i]));
  };
}

// Types of the body's outputs once the state's types are what every step keeps; `inputs` are those
// of the first step, the state from `first` on; the body gives it from output `first_result` on.
std::vector<Type> settle(InferContext& context, std::vector<Type> inputs, std::size_t first,
                         std::size_t state, std::size_t first_result) {
  for (;;) {
    std::vector<Type> results = context.infer_subgraph("body", inputs);
    require(results.size() >= first_result + state,
            "expected a body with at least {} outputs, found {}", first_result + state,
            results.size());
    bool stable = true;
    for (std::size_t i = 0; i < state; ++i) {
      Type& type = inputs[first + i];
      if (type.kind == Type::Kind::unknown) continue;
      Type kept = either(type, results[first_result + i]);
      if (kept == type) continue;
      type = std::move(kept);  // knows less than before, so that this ends
      stable = false;
    }
    if (!stable) continue;
    for (std::size_t i = 0; i < state; ++i) results[first_result + i] = inputs[first + i];
    return results;
  }
}

void infer_loop(InferContext& context) {
  const std::size_t inputs = context.node().input_count();
  const std::size_t carried = inputs > 2 ? inputs - 2 : 0;
  std::vector<Type> types{Type::tensor(DType::int64, Shape{}),
                          Type::tensor(DType::boolean, Shape{})};
  for (std::size_t i = 0; i < carried; ++i)
    types.push_back(context.input_type(i + 2) != nullptr ? *context.input_type(i + 2) : Type());
  std::vector<Type> results = settle(context, std::move(types), 2, carried, 1);
  for (std::size_t i = 1; i < results.size(); ++i) {
    Type& type = results[i];
    if (i > carried && type.shape) type.shape->insert(type.shape->begin(), Dim());
    context.set_output(i - 1, std::move(type));
  }
}

// --- Scan ---

// Before opset 9, input 0 has sequence lengths; every other input and every output has the batch
// as axis 0, and what is scanned has its steps as axis 1.
struct ScanAttrs {
  bool batched;
  std::size_t first, state, scanned;  // inputs before the state, of it, and behind it
  std::vector<std::int64_t> input_axes, output_axes, input_directions, output_directions;

  static ScanAttrs from(const Node& node) {
    const std::int64_t scanned = require_int(node, "num_scan_inputs");
    ScanAttrs attrs{.batched = node.opset() < 9, .first = node.opset() < 9 ? 1u : 0u};
    const std::int64_t inputs = static_cast<std::int64_t>(node.input_count()) - attrs.batched;
    require(1 <= scanned && scanned <= inputs,
            "attribute 'num_scan_inputs': expected 1 to {}, found {}", inputs, scanned);
    attrs.scanned = static_cast<std::size_t>(scanned);
    attrs.state = static_cast<std::size_t>(inputs - scanned);
    const std::size_t outputs = require_graph(node, "body").outputs().size();
    require(outputs >= attrs.state, "expected a body with at least {} outputs, found {}",
            attrs.state, outputs);
    const auto sized = [&](std::string_view name, std::size_t size) {
      auto values = get_ints(node, name, std::vector<std::int64_t>(size, 0));
      require(values.size() == size, "attribute '{}': expected {} values, found {}", name, size,
              values.size());
      return values;
    };
    attrs.input_axes = sized("scan_input_axes", attrs.scanned);
    attrs.input_directions =
        sized(attrs.batched ? "directions" : "scan_input_directions", attrs.scanned);
    attrs.output_axes = sized("scan_output_axes", outputs - attrs.state);
    attrs.output_directions = sized("scan_output_directions", outputs - attrs.state);
    return attrs;
  }
};

// The state after all steps, and what the steps gave.
struct Scanned {
  std::vector<RuntimeValue> state;
  std::vector<std::vector<Tensor>> stacks;
};

Scanned scan(KernelContext& context, const ScanAttrs& attrs, std::vector<RuntimeValue> state,
             const std::vector<Tensor>& sequences, std::int64_t steps) {
  std::vector<std::vector<Tensor>> stacks(attrs.output_axes.size());
  for (std::int64_t step = 0; step < steps; ++step) {
    std::vector<RuntimeValue> inputs = std::move(state);
    for (std::size_t i = 0; i < attrs.scanned; ++i)
      inputs.push_back(take_step(
          sequences[i],
          static_cast<std::size_t>(normalize_axis(attrs.input_axes[i], sequences[i].rank())),
          attrs.input_directions[i] != 0 ? steps - 1 - step : step));
    std::vector<RuntimeValue> results = context.run_subgraph("body", inputs);
    for (std::size_t i = 0; i < stacks.size(); ++i)
      stacks[i].push_back(std::move(results[attrs.state + i]).tensor());
    results.resize(attrs.state);
    state = std::move(results);
  }
  return {std::move(state), std::move(stacks)};
}

// Sizes of `axis` of all sequences, which must agree.
std::int64_t common_size(const std::vector<Tensor>& sequences,
                         const std::vector<std::int64_t>& axes, std::string_view what) {
  std::int64_t size = -1;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::int64_t axis = normalize_axis(axes[i], sequences[i].rank());
    const std::int64_t found = sequences[i].dim(static_cast<std::size_t>(axis));
    require(size < 0 || found == size, "expected {} {} in every input, found {}", size, what,
            found);
    size = found;
  }
  return size;
}

Kernel prepare_scan(const PrepareContext& prepare) {
  return [&node = prepare.node(), attrs = ScanAttrs::from(prepare.node()),
          inferred = inferred_outputs(prepare)](KernelContext& context) {
    std::vector<RuntimeValue> state;
    for (std::size_t i = 0; i < attrs.state; ++i) state.push_back(context.required_input_value(i));
    std::vector<Tensor> sequences;
    for (std::size_t i = 0; i < attrs.scanned; ++i)
      sequences.push_back(context.required_input(attrs.state + i));
    const std::int64_t steps = common_size(sequences, attrs.input_axes, "steps");
    Scanned found = scan(context, attrs, std::move(state), sequences, steps);
    for (std::size_t i = 0; i < attrs.state; ++i)
      if (context.wants_output(i)) context.forward_value(i, std::move(found.state[i]));
    const Graph& body = require_graph(node, "body");
    for (std::size_t i = 0; i < found.stacks.size(); ++i) {
      if (attrs.output_directions[i] != 0) std::ranges::reverse(found.stacks[i]);
      if (context.wants_output(attrs.state + i))
        context.forward_output(attrs.state + i,
                               stack_steps(found.stacks[i], attrs.output_axes[i],
                                           body.outputs()[attrs.state + i]->type,
                                           inferred[attrs.state + i]));
    }
  };
}

// `stacked` with zeros behind its steps, `steps` in all.
Tensor with_steps(const Tensor& stacked, std::int64_t steps) {
  Dims dims = stacked.dims();
  dims[0] = steps - dims[0];
  return join(std::vector<Tensor>{stacked, Tensor(stacked.dtype(), dims)}, 0);
}

// Each sequence of the batch by itself; a shorter one's outputs are zeros behind its steps.
Kernel prepare_batched_scan(const PrepareContext& prepare) {
  return [&node = prepare.node(), attrs = ScanAttrs::from(prepare.node())](KernelContext& context) {
    std::vector<Tensor> state, sequences;
    for (std::size_t i = 0; i < attrs.state + attrs.scanned; ++i)
      (i < attrs.state ? state : sequences).push_back(context.required_input(attrs.first + i));
    const std::int64_t batch = common_size(sequences, attrs.input_axes, "sequences");
    const std::int64_t steps =
        common_size(sequences, std::vector<std::int64_t>(attrs.scanned, 1), "steps");
    require(batch > 0, "expected at least one sequence, found none");
    std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch), steps);
    if (const Tensor* given = context.input(0)) {
      require(given->dims() == Dims{batch}, "expected sequence lengths [{}], found {}", batch,
              to_string(given->dims()));
      lengths = given->to_ints();
    }
    for (const Tensor& initial : state)
      require(initial.rank() >= 1 && initial.dim(0) == batch,
              "expected a state for {} sequences, found {}", batch, to_string(initial.dims()));
    const auto outputs = require_graph(node, "body").outputs();
    std::vector<std::vector<Tensor>> results(outputs.size());
    for (std::int64_t b = 0; b < batch; ++b) {
      const std::int64_t length = lengths[static_cast<std::size_t>(b)];
      require(0 <= length && length <= steps, "expected sequence lengths from 0 to {}, found {}",
              steps, length);
      std::vector<RuntimeValue> own_state;
      for (const Tensor& initial : state) own_state.push_back(take_step(initial, 0, b));
      std::vector<Tensor> own;
      for (const Tensor& sequence : sequences) own.push_back(take_step(sequence, 0, b));
      Scanned found = scan(context, attrs, std::move(own_state), own, length);
      for (std::size_t i = 0; i < attrs.state; ++i)
        results[i].push_back(std::move(found.state[i]).tensor());
      for (std::size_t i = 0; i < found.stacks.size(); ++i)
        results[attrs.state + i].push_back(
            with_steps(stack_steps(found.stacks[i], 0, outputs[attrs.state + i]->type), steps));
    }
    for (std::size_t i = 0; i < results.size(); ++i)
      if (context.wants_output(i)) context.forward_output(i, stack(results[i], 0));
  };
}

void infer_scan(InferContext& context) {
  const ScanAttrs attrs = ScanAttrs::from(context.node());
  std::vector<Type> types;
  Dim batch, steps;
  for (std::size_t i = attrs.first; i < context.node().input_count(); ++i) {
    Type type = context.input_type(i) != nullptr ? *context.input_type(i) : Type();
    const std::size_t place = i - attrs.first;
    if (type.shape && attrs.batched) {
      require(!type.shape->empty(), "expected a batch axis, found a scalar");
      batch = unify(batch, type.shape->front(), "the sequences of the inputs");
      type.shape->erase(type.shape->begin());
    }
    if (place >= attrs.state && type.shape) {
      const auto axis = type.shape->begin() +
                        normalize_axis(attrs.input_axes[place - attrs.state], type.shape->size());
      steps = unify(steps, *axis, "the steps of the inputs");
      type.shape->erase(axis);
    }
    types.push_back(std::move(type));
  }
  std::vector<Type> results = settle(context, std::move(types), 0, attrs.state, 0);
  for (std::size_t i = 0; i < results.size(); ++i) {
    Type& type = results[i];
    if (i >= attrs.state && type.shape)
      type.shape->insert(type.shape->begin() + normalize_axis(attrs.output_axes[i - attrs.state],
                                                              type.shape->size() + 1),
                         steps);
    if (type.shape && attrs.batched) type.shape->insert(type.shape->begin(), batch);
    context.set_output(i, std::move(type));
  }
}

}  // namespace

const Graph& if_branch(const Node& node, bool condition) {
  return require_graph(node, branch_name(condition));
}

const Graph& loop_body(const Node& node) { return require_graph(node, "body"); }

OPERATORS(control_flow) {
  registry.add(OpDef{.name = "If", .infer = infer_if, .prepare = prepare_if});
  registry.add(OpDef{.name = "Loop", .infer = infer_loop, .prepare = prepare_loop});
  registry.add(OpDef{.name = "Scan",
                     .since = 8,
                     .until = 8,
                     .infer = infer_scan,
                     .prepare = prepare_batched_scan});
  registry.add(OpDef{.name = "Scan", .since = 9, .infer = infer_scan, .prepare = prepare_scan});
}

}  // namespace onnxpress
