// Execution of a backward plan.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "graph/exec/backward_plan.h"
#include "graph/exec/step_timer.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

struct Gradient {
  Tensor tensor;          // undefined: none yet
  bool is_owned = false;  // nobody else reads its memory: it may be added to
};

struct BackwardRun {
  const BackwardPlan& plan;
  std::vector<Tensor>& saved;
  std::span<const Tensor> given;
  EngineResources& resources;
  std::vector<Gradient> gradients;  // by value

  const Tensor* value(std::size_t index) const {
    const BackwardValue& entry = plan.values[index];
    if (entry.is_given) return &given[entry.given];
    if (entry.saved == no_slot || !saved[entry.saved].defined()) return nullptr;
    return &saved[entry.saved];
  }
  const Dims& dims(std::size_t index) const {
    const BackwardValue& entry = plan.values[index];
    if (entry.dims) return *entry.dims;
    const Tensor* tensor = value(index);
    require(tensor != nullptr, "the dims of '{}' are not known", entry.value->name());
    return tensor->dims();
  }
};

class StepContext final : public BackwardContext {
 public:
  StepContext(BackwardRun& run, const BackwardStep& step)
      : run_(run), step_(step), results_(step.inputs.size()) {}

  std::size_t input_count() const override { return step_.inputs.size(); }
  const Tensor* input(std::size_t index) const override { return find(step_.inputs, index); }
  const Tensor* output(std::size_t index) const override { return find(step_.outputs, index); }
  const Tensor* output_gradient(std::size_t index) const override {
    if (index >= step_.outputs.size() || step_.outputs[index] == no_slot) return nullptr;
    const Gradient& gradient = run_.gradients[step_.outputs[index]];
    return gradient.tensor.defined() ? &gradient.tensor : nullptr;
  }
  bool wants_gradient(std::size_t index) const override {
    return index < step_.wanted.size() && step_.wanted[index];
  }
  DType input_dtype(std::size_t index) const override {
    return run_.plan.values[step_.inputs.at(index)].gradient_type;
  }
  const Dims& input_dims(std::size_t index) const override {
    return run_.dims(step_.inputs.at(index));
  }
  Tensor& gradient(std::size_t index) override {
    if (lies_over_output(index)) {
      Gradient& over = run_.gradients[step_.outputs[0]];
      over.is_owned = false;
      return results_[index] = std::move(over.tensor);
    }
    return results_.at(index) =
               run_.resources.buffers.tensor(input_dtype(index), input_dims(index));
  }
  void forward_gradient(std::size_t index, Tensor tensor) override {
    results_.at(index) = std::move(tensor);
  }
  ThreadPool& pool() override { return run_.resources.pool; }

  std::vector<Tensor>& results() { return results_; }

  // Whether the result's memory is read by nobody else once the gradients of the outputs are gone.
  bool is_owned(std::size_t index) const {
    if (!results_[index].defined()) return false;
    const auto is_shared = [&](const Tensor& other) {
      return other.defined() && other.shares_storage_with(results_[index]);
    };
    for (std::size_t i = 0; i < results_.size(); ++i)
      if (i != index && is_shared(results_[i])) return false;
    for (const std::size_t value : step_.outputs) {
      if (value == no_slot) continue;
      const Gradient& gradient = run_.gradients[value];
      if (!gradient.is_owned && is_shared(gradient.tensor)) return false;
    }
    for (const std::size_t value : step_.inputs)
      if (value != no_slot && is_shared(run_.gradients[value].tensor)) return false;
    for (const auto* indices : {&step_.inputs, &step_.outputs})
      for (const std::size_t value : *indices) {
        const Tensor* tensor = value != no_slot ? run_.value(value) : nullptr;
        if (tensor && is_shared(*tensor)) return false;
      }
    return true;
  }

 private:
  // Rows on vectors read an element of the output's gradient before they write that of the input's;
  // the last gradient of that size may then lie in its memory.
  bool lies_over_output(std::size_t index) const {
    if (!step_.overwrites || step_.outputs[0] == no_slot) return false;
    const Gradient& over = run_.gradients[step_.outputs[0]];
    if (!over.is_owned || over.tensor.dtype() != input_dtype(index) || over.tensor.dims() != input_dims(index))
      return false;
    for (std::size_t i = 0; i < results_.size(); ++i)
      if (i != index && step_.wanted[i] && !results_[i].defined() && input_dims(i) == over.tensor.dims())
        return false;
    return true;
  }
  const Tensor* find(const std::vector<std::size_t>& indices, std::size_t index) const {
    if (index >= indices.size() || indices[index] == no_slot) return nullptr;
    return run_.value(indices[index]);
  }

  BackwardRun& run_;
  const BackwardStep& step_;
  std::vector<Tensor> results_;
};

// sum[i] = a[i] + b[i]; `sum` may be one of them.
template <class T>
void add_elements(ThreadPool& pool, const T* a, const T* b, T* sum, std::int64_t count) {
  pool.parallel_for(count, 32768, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) sum[i] = a[i] + b[i];
  });
}

// Gradients of several readers are summed.
void accumulate(Gradient& total, Tensor added, bool is_owned, EngineResources& resources) {
  if (!total.tensor.defined()) {
    total = {std::move(added), is_owned};
    return;
  }
  require(total.tensor.dtype() == added.dtype() && total.tensor.dims() == added.dims(),
          "expected gradients of one type and shape, found {}{} and {}{}",
          name(total.tensor.dtype()), to_string(total.tensor.dims()), name(added.dtype()),
          to_string(added.dims()));
  const DType type = added.dtype();
  if (type != DType::float32 && type != DType::float64) {  // narrow: summed in float32
    Gradient wide{total.tensor.cast(DType::float32), false};
    accumulate(wide, added.cast(DType::float32), false, resources);
    total = {wide.tensor.cast(type), true};
    return;
  }
  if (!total.is_owned && is_owned) {
    std::swap(total.tensor, added);
    total.is_owned = true;
  }
  Tensor sum = total.is_owned ? std::move(total.tensor) : resources.buffers.tensor(type, added.dims());
  const Tensor& other = total.is_owned ? sum : total.tensor;
  dispatch_floats(type, [&]<class T>(std::type_identity<T>) {
    const T* const a = other.data<T>().data();
    add_elements(resources.pool, a, added.data<T>().data(), sum.mutable_data<T>().data(),
                 sum.size());
  });
  total = {std::move(sum), true};
}

void release(BackwardRun& run, const BackwardStep& step) {
  for (const std::size_t index : step.release) run.saved[run.plan.values[index].saved] = Tensor();
}

void run_again(BackwardRun& run, const BackwardStep& step) {
  std::vector<const Tensor*> inputs;
  for (const std::size_t input : step.inputs)
    inputs.push_back(input != no_slot ? run.value(input) : nullptr);
  run.saved[run.plan.values[step.outputs[0]].saved] = run_again(step, inputs, run.resources);
  release(run, step);
}

void run_step(BackwardRun& run, const BackwardStep& step) {
  if (step.forward) return run_again(run, step);
  StepContext context(run, step);
  const bool has_gradient = std::ranges::any_of(step.outputs, [&](std::size_t output) {
    return output != no_slot && run.gradients[output].tensor.defined();
  });
  std::vector<bool> is_owned(step.inputs.size(), false);
  if (has_gradient) {
    run_gradient(step.kernel, context);
    for (std::size_t i = 0; i < is_owned.size(); ++i) is_owned[i] = context.is_owned(i);
  }
  for (const std::size_t output : step.outputs)
    if (output != no_slot) run.gradients[output] = {};
  for (std::size_t i = 0; i < is_owned.size(); ++i) {
    Tensor& result = context.results()[i];
    if (step.wanted[i] && result.defined())
      accumulate(run.gradients[step.inputs[i]], std::move(result), is_owned[i], run.resources);
  }
  release(run, step);
}

}  // namespace

std::vector<Tensor> run_backward(const BackwardPlan& plan, std::vector<Tensor>& saved,
                                 std::span<const Tensor> given, double scale,
                                 EngineResources& resources) {
  std::vector<Tensor> results(plan.differentiated.size());
  if (plan.loss == no_slot) return results;
  saved.resize(plan.kept.size() + plan.recomputed);
  BackwardRun run{plan, saved, given, resources, std::vector<Gradient>(plan.values.size())};
  const Dims& dims = run.dims(plan.loss);
  require(element_count(dims) == 1, "output '{}': expected a loss of one element, found {}",
          plan.values[plan.loss].value->name(), to_string(dims));
  run.gradients[plan.loss].tensor =
      Tensor::of<double>(dims, {scale}).cast(plan.values[plan.loss].gradient_type);
  for (const BackwardStep& step : plan.steps) {
    PlanStep timed{.node = step.node, .backend = (step.forward ? "again " : "backward ") + step.backend};
    const StepTimer timer(resources, timed);
    in_context([&] { return "gradient of " + step.node->describe(); },
               [&] { run_step(run, step); });
  }
  for (std::size_t i = 0; i < results.size(); ++i)
    if (plan.differentiated[i] != no_slot)
      results[i] = std::move(run.gradients[plan.differentiated[i]].tensor);
  return results;
}

}  // namespace onnxpress
