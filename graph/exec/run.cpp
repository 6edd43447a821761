// Execution of a plan.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <list>
#include <new>
#include <utility>

#include "graph/exec/arena.h"
#include "graph/exec/plan.h"
#include "graph/exec/step_timer.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/transpose.h"

namespace onnxpress {
namespace {

// A subgraph that met this many different sets of shapes is planned once more, without dims.
constexpr std::size_t most_subgraph_plans = 8;
constexpr std::size_t kept_subgraph_plans = 4;

// The axes of an image with its channels last in the order of its dims.
std::vector<std::int64_t> row_major_order(std::size_t rank) {
  std::vector<std::int64_t> order{0, static_cast<std::int64_t>(rank) - 1};
  for (std::size_t axis = 1; axis + 1 < rank; ++axis)
    order.push_back(static_cast<std::int64_t>(axis));
  return order;
}

struct Run {
  const Model& model;
  EngineResources& resources;
  Observer* observer;

  void show(const Value& value, const Tensor& tensor) const {
    if (observer && tensor.defined() && observer->wants(value)) observer->observe(value, tensor);
  }
  void show(const Value& value, const RuntimeValue& given) const {
    if (given.is_tensor()) show(value, given.tensor());
  }
  void show(const Slot& slot, const RuntimeValue& given) const {
    if (slot.layout == Layout::row_major) return show(*slot.value, given);
    if (!observer->wants(*slot.value)) return;
    const Tensor& tensor = given.tensor();
    if (observer->any_layout(*slot.value))
      observer->observe(*slot.value, tensor);
    else
      observer->observe(*slot.value, transposed(tensor, row_major_order(tensor.rank())));
  }
};

std::byte* arena_base(const GraphPlan& plan) { return static_cast<std::byte*>(plan.arena.get()); }

bool is_in_arena(const GraphPlan& plan, const Tensor& tensor) {
  if (tensor.dtype() == DType::string || tensor.size() == 0) return false;
  const std::byte* data = tensor.bytes().data();
  const std::byte* base = arena_base(plan);
  return base && std::less_equal<>()(base, data) && std::less<>()(data, base + plan.arena_bytes);
}

// The slot's tensor over its part of the arena, made again when a forwarded one took its place.
Tensor& arena_tensor(GraphPlan& plan, std::size_t index, const Dims& dims) {
  const Slot& slot = plan.slots[index];
  Tensor& tensor = plan.values[index].mutable_tensor();
  std::byte* memory = arena_base(plan) + slot.offset;
  if (!tensor.defined() || tensor.dtype() != slot.type.elem || tensor.dims() != dims ||
      tensor.bytes().data() != memory)
    tensor = Tensor::over(slot.type.elem, dims, {memory, slot.bytes}, plan.arena);
  return tensor;
}

// Tensors over the slot's own part of the arena stay for the next run.
void release(GraphPlan& plan, std::size_t index) {
  const bool is_planned = plan.slots[index].source == Slot::Source::arena;
  if (!is_planned || !is_in_arena(plan, plan.values[index].tensor()))
    plan.values[index] = RuntimeValue();
}

// The same value with tensors of the arena copied, so that it can stay when the arena is used
// again; `value` itself where it holds none.
RuntimeValue kept(const GraphPlan& plan, const RuntimeValue& value) {
  if (value.is_tensor()) {
    const Tensor& tensor = value.tensor();
    if (!is_in_arena(plan, tensor)) return value;
    Tensor copy = Tensor::uninitialized(tensor.dtype(), tensor.dims());
    std::ranges::copy(tensor.bytes(), copy.mutable_bytes().begin());
    return copy;
  }
  if (value.kind() == Type::Kind::optional)
    return value.content() != nullptr ? RuntimeValue::filled_optional(kept(plan, *value.content()))
                                      : value;
  std::vector<RuntimeValue> elements;
  for (const RuntimeValue& element : value.elements()) elements.push_back(kept(plan, element));
  return RuntimeValue::sequence(std::move(elements));
}

class StepContext final : public KernelContext {
 public:
  StepContext(GraphPlan& plan, PlanStep& step, const Run& run)
      : plan_(plan), step_(step), run_(run) {}

  std::size_t input_count() const override { return step_.inputs.size(); }

  const Tensor* input(std::size_t index) const override {
    if (index >= step_.inputs.size() || step_.inputs[index] == no_slot) return nullptr;
    const Slot& slot = plan_.slots[step_.inputs[index]];
    if (slot.source != Slot::Source::constant) return &plan_.values[step_.inputs[index]].tensor();
    // Rows of a table are looked up as bytes, wherever they lie.
    const bool is_table = index == 0 && step_.node != nullptr && step_.node->is("Gather");
    return run_.resources.lean && !is_table ? &aligned(slot.constant) : &slot.constant;
  }

  RuntimeValue input_value(std::size_t index) const override {
    if (index >= step_.inputs.size() || step_.inputs[index] == no_slot) return {};
    return value(step_.inputs[index]);
  }

  bool wants_output(std::size_t index) const override {
    return index < step_.outputs.size() && step_.outputs[index] != no_slot;
  }

  Tensor& output(std::size_t index, DType type, const Dims& dims) override {
    if (!wants_output(index)) return unwanted_.emplace_back(Tensor::uninitialized(type, dims));
    const std::size_t target = step_.outputs[index];
    const Slot& slot = plan_.slots[target];
    check(slot, type, dims);
    if (slot.source == Slot::Source::arena) return arena_tensor(plan_, target, dims);
    return plan_.values[target].mutable_tensor() = run_.resources.buffers.tensor(type, dims);
  }

  void forward_output(std::size_t index, Tensor tensor) override {
    if (!wants_output(index)) return;
    const std::size_t target = step_.outputs[index];
    const Slot& slot = plan_.slots[target];
    check(slot, tensor.dtype(), tensor.dims());
    if (is_in_arena(plan_, tensor) && !may_share(slot, tensor)) {
      // The arena gives the memory to another value before this one's last use: copy.
      Tensor& copy = output(index, tensor.dtype(), tensor.dims());
      std::ranges::copy(tensor.bytes(), copy.mutable_bytes().begin());
      return;
    }
    plan_.values[target] = std::move(tensor);
  }

  void forward_value(std::size_t index, RuntimeValue value) override {
    if (value.is_tensor()) return forward_output(index, std::move(value).tensor());
    if (!wants_output(index)) return;
    const std::size_t target = step_.outputs[index];
    const Slot& slot = plan_.slots[target];
    if (slot.type.kind != Type::Kind::unknown && slot.type.kind != value.kind())
      fail("output '{}': the type rule expects {}, the kernel gives {}", slot.value->name(),
           to_string(slot.type), to_string(type_of(value)));
    plan_.values[target] = kept(plan_, value);
  }

  ThreadPool& pool() override { return run_.resources.pool; }

  std::vector<RuntimeValue> run_subgraph(std::string_view attribute,
                                         std::span<const RuntimeValue> inputs) override {
    const auto found = step_.subgraphs.find(attribute);
    require(found != step_.subgraphs.end(), "expected a subgraph in attribute '{}', found none",
            attribute);
    SubgraphPlans& plans = found->second;
    std::vector<RuntimeValue> captured;
    for (std::size_t index : plans.captured) captured.push_back(value(index));
    GraphPlan& plan = subgraph_plan(plans, inputs, captured);
    return run_plan(plan, run_.model, inputs, captured, run_.resources, run_.observer);
  }

 private:
  RuntimeValue value(std::size_t index) const {
    const Slot& slot = plan_.slots[index];
    return slot.source == Slot::Source::constant ? slot.constant : plan_.values[index];
  }

  // A large constant that a mapped file holds at an odd address, copied for this step alone: its own
  // copy would stay.
  const Tensor& aligned(const Tensor& constant) const {
    const auto bytes = constant.bytes();
    if (bytes.size() <= large_constant || reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(double) == 0)
      return constant;
    for (const auto& [original, copy] : copies_)
      if (original == &constant) return copy;
    Tensor copy = run_.resources.buffers.tensor(constant.dtype(), constant.dims());
    std::byte* target = copy.mutable_bytes().data();
    for_each_block(bytes, [&](std::span<const std::byte> block) {
      std::memcpy(target, block.data(), block.size());
      target += block.size();
    });
    return copies_.emplace_back(&constant, std::move(copy)).second;
  }

  // The storage of `tensor` stays the slot's: planned as an alias of a value in the arena.
  bool may_share(const Slot& slot, const Tensor& tensor) const {
    if (slot.source != Slot::Source::alias) return false;
    std::size_t root = slot.root;
    while (plan_.slots[root].source == Slot::Source::alias) root = plan_.slots[root].root;
    if (plan_.slots[root].source != Slot::Source::arena) return false;
    return tensor.bytes().data() == arena_base(plan_) + plan_.slots[root].offset;
  }

  static void check(const Slot& slot, DType type, const Dims& dims) {
    const Type& expected = slot.stored_type();
    if (expected.kind == Type::Kind::unknown) return;
    bool fits =
        expected.is_tensor() && (expected.elem == DType::undefined || expected.elem == type);
    if (fits && expected.shape) {
      fits = expected.shape->size() == dims.size();
      for (std::size_t i = 0; fits && i < dims.size(); ++i) {
        const Dim& dim = (*expected.shape)[i];
        fits = !dim.is_known() || dim.value() == dims[i];
      }
    }
    if (!fits)
      fail("output '{}': the shape rule expects {}, the kernel gives {}{}", slot.value->name(),
           to_string(expected), name(type), to_string(dims));
  }

  GraphPlan& subgraph_plan(SubgraphPlans& plans, std::span<const RuntimeValue> inputs,
                           std::span<const RuntimeValue> captured) {
    const bool with_dims = plans.made < most_subgraph_plans;
    const auto planned_type = [&](const RuntimeValue& value) {
      Type type = type_of(value);
      if (!with_dims && type.shape) type.shape = Shape(type.shape->size());
      return type;
    };
    std::vector<Type> types;
    for (const RuntimeValue& value : inputs) types.push_back(planned_type(value));
    for (const RuntimeValue& value : captured) types.push_back(planned_type(value));
    for (auto entry = plans.plans.begin(); entry != plans.plans.end(); ++entry) {
      if (entry->types != types) continue;
      plans.plans.splice(plans.plans.begin(), plans.plans, entry);
      return *plans.plans.front().plan;
    }

    require(inputs.size() == plans.graph->inputs().size(),
            "subgraph '{}': expected {} inputs, found {}", plans.graph->name,
            plans.graph->inputs().size(), inputs.size());
    KnownInputs known;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      known[plans.graph->inputs()[i]] = {.type = types[i]};
    std::vector<const Value*> values;
    for (std::size_t i = 0; i < captured.size(); ++i) {
      const Slot& slot = plan_.slots[plans.captured[i]];
      known[slot.value] = {
          .type = types[inputs.size() + i],
          .constant = slot.source == Slot::Source::constant ? &slot.constant : nullptr};
      values.push_back(slot.value);
    }
    std::unique_ptr<GraphPlan> plan =
        make_plan(run_.model, *plans.graph, known, values, run_.resources, plan_.is_fused);
    if (plans.plans.size() == kept_subgraph_plans) plans.plans.pop_back();
    plans.plans.push_front({.types = std::move(types), .plan = std::move(plan)});
    ++plans.made;
    return *plans.plans.front().plan;
  }

  GraphPlan& plan_;
  PlanStep& step_;
  const Run& run_;
  std::list<Tensor> unwanted_;  // outputs that a kernel writes although nobody wants them
  mutable std::list<std::pair<const Tensor*, Tensor>> copies_;  // of constants at odd addresses
};

// Drops the run's tensors; also when it ends by an exception.
class RunningPlan {
 public:
  explicit RunningPlan(GraphPlan& plan) : plan_(plan) {
    require(!plan.running, "a graph cannot run inside itself");
    plan.values.resize(plan.slots.size());
    if (!plan.arena && plan.arena_bytes > 0) {
      void* arena =
          ::operator new (plan.arena_bytes, std::align_val_t{arena_alignment}, std::nothrow);
      require(arena != nullptr, "cannot allocate {} bytes for the values of a run",
              plan.arena_bytes);
      plan.arena = {arena, [](void* memory) {
                      ::operator delete (memory, std::align_val_t{arena_alignment});
                    }};
    }
    plan.running = true;
  }
  ~RunningPlan() {
    for (std::size_t i = 0; i < plan_.slots.size(); ++i) release(plan_, i);
    plan_.running = false;
  }
  RunningPlan(const RunningPlan&) = delete;
  RunningPlan& operator=(const RunningPlan&) = delete;

 private:
  GraphPlan& plan_;
};

// Pages of mapped files that the step has read.
void release_constants(const GraphPlan& plan, const PlanStep& step) {
  for (const std::size_t index : step.inputs)
    if (index != no_slot && plan.slots[index].source == Slot::Source::constant)
      release_pages(plan.slots[index].constant.bytes());
}

void run_step(GraphPlan& plan, PlanStep& step, const Run& run) {
  if (step.kernel) {
    StepContext context(plan, step, run);
    const StepTimer timer(run.resources, step);
    run_kernel(step.kernel, context);
  }
  for (std::size_t index : step.outputs) {
    if (index == no_slot) continue;
    const Slot& slot = plan.slots[index];
    const bool is_constant = slot.source == Slot::Source::constant;
    require(is_constant || plan.values[index].defined(), "output '{}' was not produced",
            slot.value->name());
    if (!run.observer || step.is_relayout) continue;
    if (is_constant)
      run.show(*slot.value, slot.constant);
    else
      run.show(slot, plan.values[index]);
  }
  for (std::size_t index : step.release) release(plan, index);
  if (run.resources.lean) release_constants(plan, step);
}

}  // namespace

std::vector<RuntimeValue> run_plan(GraphPlan& plan, const Model& model,
                                   std::span<const RuntimeValue> inputs,
                                   std::span<const RuntimeValue> captured,
                                   EngineResources& resources, Observer* observer) {
  const Run run{model, resources, observer};
  const RunningPlan running(plan);
  for (std::size_t i = 0; i < plan.inputs.size(); ++i) {
    plan.values[plan.inputs[i]] = inputs[i];
    if (observer) run.show(*plan.slots[plan.inputs[i]].value, inputs[i]);
  }
  for (std::size_t i = 0; i < plan.captured.size(); ++i)
    if (plan.slots[plan.captured[i]].source == Slot::Source::given)
      plan.values[plan.captured[i]] = captured[i];
  for (PlanStep& step : plan.steps)
    in_context([&] { return step.node->describe(); }, [&] { run_step(plan, step, run); });
  std::vector<RuntimeValue> outputs;
  for (std::size_t index : plan.outputs) {
    const Slot& slot = plan.slots[index];
    if (slot.source == Slot::Source::constant)
      outputs.push_back(slot.constant);
    else
      outputs.push_back(plan.values[index]);
  }
  return outputs;
}

}  // namespace onnxpress
