// MatMulInteger whose sums are made floats behind it (Cast, Mul by the scales, Add), as one step.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "graph/exec/plan.h"
#include "graph/exec/prepare.h"
#include "graph/exec/step_index.h"

namespace onnxpress {
namespace {

class Scaler {
 public:
  explicit Scaler(GraphPlan& plan) : plan_(plan), index_(plan) {}

  void run() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i)
      if (is(i, "MatMulInteger") && is_executed(plan_, step(i))) product(i);
    std::erase_if(plan_.steps, [](const PlanStep& step) { return step.node == nullptr; });
    drop_unneeded_steps(plan_, true);
  }

 private:
  const PlanStep& step(std::size_t i) const { return plan_.steps[i]; }
  bool is(std::size_t i, std::string_view op) const {
    return step(i).node && step(i).node->is(op) && step(i).outputs.size() == 1;
  }
  const Tensor* constant(std::size_t slot) const {
    const bool is_constant = slot != no_slot && plan_.slots[slot].source == Slot::Source::constant;
    return is_constant ? &plan_.slots[slot].constant : nullptr;
  }
  static std::size_t input(const PlanStep& step, std::size_t position) {
    return position < step.inputs.size() ? step.inputs[position] : no_slot;
  }
  bool is_float32(std::size_t slot) const { return plan_.slots[slot].type.elem == DType::float32; }
  bool is_one_number(std::size_t slot) const {
    const auto dims = plan_.dims(slot);
    return dims && element_count(*dims) == 1;
  }

  // One number, or one for each of the columns: of no more axes than the result.
  bool is_by_column(std::size_t slot, std::size_t result) const {
    const Tensor* numbers = constant(slot);
    const auto dims = plan_.dims(result);
    if (numbers == nullptr || numbers->dtype() != DType::float32 || !dims || numbers->rank() > dims->size())
      return false;
    return numbers->size() == 1 || (numbers->size() == dims->back() && numbers->dims().back() == dims->back());
  }

  // The step that alone reads the output of step `i`, when it is an `op`.
  std::optional<StepIndex::Read> into(std::size_t i, std::string_view op) const {
    const auto reader = index_.only_reader(step(i).outputs[0]);
    if (!reader || !is(reader->step, op)) return std::nullopt;
    return reader;
  }

  void product(std::size_t i) {
    const auto cast = into(i, "Cast");
    if (!cast || !is_float32(step(cast->step).outputs[0])) return;
    const auto scaled = into(cast->step, "Mul");
    if (!scaled) return;
    const std::size_t result = step(scaled->step).outputs[0];
    // The scales of both operands, multiplied beforehand.
    const auto scales = index_.producer(input(step(scaled->step), 1 - scaled->input));
    if (!scales || !is(*scales, "Mul")) return;
    for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
      const std::size_t a_scale = input(step(*scales), position), b_scale = input(step(*scales), 1 - position);
      if (!is_one_number(a_scale) || !is_float32(a_scale) || constant(a_scale) || !is_by_column(b_scale, result))
        continue;
      std::vector<std::size_t> passed{i, cast->step, scaled->step};
      PlanStep made;
      made.inputs = {input(step(i), 0), input(step(i), 1), a_scale, b_scale, input(step(i), 2), input(step(i), 3)};
      made.outputs = {result};
      if (const auto sum = into(scaled->step, "Add")) {
        const std::size_t bias = input(step(sum->step), 1 - sum->input);
        const std::size_t biased = step(sum->step).outputs[0];
        if (is_by_column(bias, biased) && plan_.dims(biased) == plan_.dims(result)) {
          passed.push_back(sum->step);
          made.inputs.push_back(bias);
          made.outputs = {biased};
        }
      }
      replace(passed, std::move(made));
      return;
    }
  }

  void replace(const std::vector<std::size_t>& passed, PlanStep made) {
    made.node = plan_.made_up_graph()->add_node({.op_type = "MatMulIntegerToFloat",
                                                 .domain = "com.microsoft",
                                                 .name = step(passed[0]).node->name});
    const StepPreparation context(plan_, made, 1);
    const auto rows = operators().kernels(*made.node);
    if (std::ranges::none_of(rows, [&](const KernelDef* row) { return row->supports(context); })) return;
    for (const std::size_t i : passed) {
      index_.forget(i, step(i).inputs);
      plan_.steps[i] = PlanStep{};
    }
    plan_.steps[passed.back()] = std::move(made);
    index_.add(plan_.steps[passed.back()], passed.back());
  }

  GraphPlan& plan_;
  StepIndex index_;
};

}  // namespace

void scale_integer_steps(GraphPlan& plan) { Scaler(plan).run(); }

}  // namespace onnxpress
