#include "graph/exec/post_ops.h"

#include "graph/exec/prepare.h"
#include "graph/kernels/activation.h"

namespace onnxpress {
namespace {

using Kind = PostOp::Kind;

const Slot* input_slot(const GraphPlan& plan, const PlanStep& step, std::size_t position) {
  const bool is_there = position < step.inputs.size() && step.inputs[position] != no_slot;
  return is_there ? &plan.slots[step.inputs[position]] : nullptr;
}

// x + c, c + x, x - c, c - x, x * c, c * x, x / c.
std::optional<PostOp> linear(const Node& node, std::size_t position, float c) {
  PostOp op{.kind = Kind::linear, .alpha = 1, .beta = 0};
  if (node.is("Add")) {
    op.beta = c;
  } else if (node.is("Sub")) {
    op.alpha = position == 0 ? 1.0f : -1.0f;
    op.beta = position == 0 ? -c : c;
  } else if (node.is("Mul")) {
    op.alpha = c;
  } else if (node.is("Div") && position == 0 && c != 0) {
    op.alpha = 1 / c;
  } else {
    return std::nullopt;
  }
  return op;
}

}  // namespace

std::optional<float> scalar_input(const GraphPlan& plan, const PlanStep& step,
                                  std::size_t position) {
  const Slot* slot = input_slot(plan, step, position);
  const bool is_scalar = slot && slot->source == Slot::Source::constant &&
                         slot->constant.dtype() == DType::float32 && slot->constant.size() == 1;
  return is_scalar ? std::optional(slot->constant.data<float>()[0]) : std::nullopt;
}

std::optional<StepAsPostOp> as_post_op(const GraphPlan& plan, const PlanStep& step,
                                       std::size_t position) {
  if (!step.node || step.outputs.size() != 1 || step.outputs[0] == no_slot ||
      !step.post_ops.empty())
    return std::nullopt;
  const Slot* input = input_slot(plan, step, position);
  const Slot& output = plan.slots[step.outputs[0]];
  if (!input || input->type.elem != DType::float32 || output.type.elem != DType::float32)
    return std::nullopt;
  const auto dims = output.dims();
  if (!dims || input->dims() != dims) return std::nullopt;
  if (position == 0)
    if (const auto op = as_activation(StepPreparation(plan, step, 1)))
      return StepAsPostOp{.op = *op};

  const Node& node = *step.node;
  const bool is_sum = node.is("Sum") && step.inputs.size() == 2;
  const bool is_binary =
      is_sum || node.is("Add") || node.is("Sub") || node.is("Mul") || node.is("Div");
  if (!is_binary || step.inputs.size() != 2) return std::nullopt;
  const std::size_t other = 1 - position;
  if (const auto c = scalar_input(plan, step, other)) {
    const auto op = linear(node, position, *c);
    return op ? std::optional(StepAsPostOp{.op = *op}) : std::nullopt;
  }
  const Slot* added = input_slot(plan, step, other);
  const bool is_operand = (is_sum || node.is("Add") || node.is("Mul")) &&
                          step.inputs[0] != step.inputs[1] && added &&
                          added->type.elem == DType::float32 && added->dims() == dims &&
                          added->source != Slot::Source::constant;
  if (!is_operand) return std::nullopt;
  return StepAsPostOp{.op = {.kind = node.is("Mul") ? Kind::multiply : Kind::add}, .other = other};
}

}  // namespace onnxpress
