#include "graph/exec/post_ops.h"

#include <cmath>
#include <limits>

#include "graph/ops/attributes.h"

namespace onnxpress {
namespace {

using Kind = PostOp::Kind;

const Slot* input_slot(const GraphPlan& plan, const PlanStep& step, std::size_t position) {
  const bool is_there = position < step.inputs.size() && step.inputs[position] != no_slot;
  return is_there ? &plan.slots[step.inputs[position]] : nullptr;
}

// Bounds of Clip as attributes or constant inputs; nothing when an input is not constant.
std::optional<PostOp> clip(const GraphPlan& plan, const PlanStep& step) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  PostOp op{.kind = Kind::clip, .alpha = -infinity, .beta = infinity};
  if (step.node->opset() < 11) {
    op.alpha = get_float(*step.node, "min", op.alpha);
    op.beta = get_float(*step.node, "max", op.beta);
  } else {
    for (const std::size_t position : {std::size_t{1}, std::size_t{2}}) {
      if (!input_slot(plan, step, position)) continue;
      const auto bound = scalar_input(plan, step, position);
      if (!bound || std::isnan(*bound)) return std::nullopt;
      (position == 1 ? op.alpha : op.beta) = *bound;
    }
  }
  if (op.alpha > op.beta) return std::nullopt;
  return op;
}

std::optional<PostOp> activation(const GraphPlan& plan, const PlanStep& step) {
  const Node& node = *step.node;
  const std::string& name = node.op_type();
  if (node.is("Clip")) return clip(plan, step);
  if (node.is("Relu")) return PostOp{.kind = Kind::relu};
  if (node.is("LeakyRelu"))
    return PostOp{.kind = Kind::leaky_relu, .alpha = get_float(node, "alpha", 0.01f)};
  if (node.is("Elu")) return PostOp{.kind = Kind::elu, .alpha = get_float(node, "alpha", 1)};
  if (node.is("Sigmoid")) return PostOp{.kind = Kind::sigmoid};
  if (node.is("Tanh")) return PostOp{.kind = Kind::tanh};
  if (node.is("HardSigmoid"))
    return PostOp{.kind = Kind::hard_sigmoid,
                  .alpha = get_float(node, "alpha", 0.2f),
                  .beta = get_float(node, "beta", 0.5f)};
  if (node.is("HardSwish")) return PostOp{.kind = Kind::hard_swish};
  if (node.is("Mish")) return PostOp{.kind = Kind::mish};
  if (node.is("Swish")) return PostOp{.kind = Kind::swish, .alpha = get_float(node, "alpha", 1)};
  if (node.is("Gelu")) {
    const bool with_tanh = get_string(node, "approximate", "none") == "tanh";
    return PostOp{.kind = with_tanh ? Kind::gelu_tanh : Kind::gelu};
  }
  if (node.domain() != "com.microsoft") return std::nullopt;
  if (name == "Gelu") return PostOp{.kind = Kind::gelu};
  if (name == "FastGelu" && !input_slot(plan, step, 1)) return PostOp{.kind = Kind::gelu_tanh};
  if (name == "QuickGelu")
    return PostOp{.kind = Kind::swish, .alpha = get_float(node, "alpha", 1.702f)};
  return std::nullopt;
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
  if (!step.node || step.outputs.size() != 1 || !step.post_ops.empty()) return std::nullopt;
  const Slot* input = input_slot(plan, step, position);
  const Slot& output = plan.slots[step.outputs[0]];
  if (!input || input->type.elem != DType::float32 || output.type.elem != DType::float32)
    return std::nullopt;
  const auto dims = output.dims();
  if (!dims || input->dims() != dims) return std::nullopt;
  if (position == 0)
    if (const auto op = activation(plan, step)) return StepAsPostOp{.op = *op};

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
  const bool is_add = (is_sum || node.is("Add")) && step.inputs[0] != step.inputs[1] && added &&
                      added->type.elem == DType::float32 && added->dims() == dims &&
                      added->source != Slot::Source::constant;
  if (!is_add) return std::nullopt;
  return StepAsPostOp{.op = {.kind = Kind::add}, .other = other};
}

}  // namespace onnxpress
