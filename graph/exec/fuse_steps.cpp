// Fusion of a plan's steps: channel-wise scales and shifts into weights, elementwise operations
// behind convolutions and products into their kernels.
#include <algorithm>
#include <optional>
#include <utility>

#include "graph/exec/plan.h"
#include "graph/exec/post_ops.h"
#include "graph/exec/prepare.h"
#include "graph/exec/step_index.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/channel_affine.h"

namespace onnxpress {
namespace {

class StepFusion {
 public:
  StepFusion(GraphPlan& plan, int threads) : plan_(plan), index_(plan), threads_(threads) {}

  void run() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      // Absorbing moves the step to where the absorbed one was: readers' operands are there then.
      std::size_t at = i;
      while (const auto next = absorb_next(at)) at = *next;
    }
    std::erase_if(plan_.steps, [](const PlanStep& step) { return step.node == nullptr; });
  }

 private:
  // Merges the step at `at` with the only reader of its output; the merged step is at the reader's
  // place, which is returned.
  std::optional<std::size_t> absorb_next(std::size_t at) {
    const PlanStep& step = plan_.steps[at];
    if (!step.node || !is_executed(plan_, step) || !step.subgraphs.empty()) return std::nullopt;
    const KernelDef* kernel = kernel_of(step);
    if (!kernel || !kernel->fuses || step.outputs.size() != 1) return std::nullopt;
    const auto reader = index_.only_reader(step.outputs[0]);
    if (!reader) return std::nullopt;
    const PlanStep& next = plan_.steps[reader->step];
    if (step.post_ops.empty() && fold_affine(at, *reader)) return merge(at, reader->step);
    const auto as = as_post_op(plan_, next, reader->input);
    if (!as) return std::nullopt;
    const StepPreparation context(plan_, step, threads_);
    PostOp op = as->op;
    if (!kernel->fuses(context, op)) return std::nullopt;
    PlanStep& merged = plan_.steps[at];
    if (as->other) {
      // Behind the inputs that the operators have themselves, given or not.
      merged.inputs.resize(std::max<std::size_t>(merged.inputs.size(), 3), no_slot);
      op.operand = merged.inputs.size();
      const std::size_t operand = next.inputs[*as->other];
      index_.move_read(operand, reader->step, *as->other, at, op.operand);
      merged.inputs.push_back(operand);
    }
    merged.post_ops.push_back(op);
    return merge(at, reader->step);
  }

  std::size_t merge(std::size_t at, std::size_t reader) {
    PlanStep merged = std::exchange(plan_.steps[at], PlanStep{});
    const PlanStep replaced = std::exchange(plan_.steps[reader], std::move(merged));
    plan_.steps[reader].outputs = replaced.outputs;
    index_.forget(at, plan_.steps[reader].inputs);
    index_.forget(reader, replaced.inputs);
    index_.add(plan_.steps[reader], reader);
    return reader;
  }

  // The fast kernel that would run the step.
  const KernelDef* kernel_of(const PlanStep& step) const {
    const StepPreparation context(plan_, step, threads_);
    for (const KernelDef* fast : operators().kernels(*step.node))
      if (fast->supports(context)) return fast;
    return nullptr;
  }

  const Tensor* constant(const PlanStep& step, std::size_t position) const {
    if (position >= step.inputs.size() || step.inputs[position] == no_slot) return nullptr;
    const Slot& slot = plan_.slots[step.inputs[position]];
    return slot.source == Slot::Source::constant ? &slot.constant : nullptr;
  }

  // What `reader` does to each channel of the output of a convolution or product: axis 1 of images,
  // the last axis of others.
  std::optional<ChannelAffine> affine_of(const PlanStep& reader, std::size_t position,
                                         std::int64_t channels, bool is_image) const {
    const Node& node = *reader.node;
    if (node.is("BatchNormalization")) {
      const BatchNormAttrs attrs = BatchNormAttrs::from(node);
      const Tensor* parameters[4];
      for (std::size_t i = 0; i < 4; ++i) {
        parameters[i] = constant(reader, i + 1);
        if (!parameters[i] || parameters[i]->size() != channels) return std::nullopt;
      }
      if (attrs.training || !attrs.per_channel || position != 0 || reader.outputs.size() != 1 ||
          !is_image)
        return std::nullopt;
      return batch_norm_affine(*parameters[0], *parameters[1], *parameters[2], *parameters[3],
                               attrs.epsilon);
    }
    const bool is_binary = (node.is("Add") || node.is("Mul") || node.is("Sub")) &&
                           reader.inputs.size() == 2 && node.opset() >= 7;
    if (!is_binary || (node.is("Sub") && position != 0)) return std::nullopt;
    const Tensor* by = constant(reader, 1 - position);
    if (!by || by->dtype() != DType::float32 || !is_along_channels(*by, reader, channels, is_image))
      return std::nullopt;
    ChannelAffine affine{.scale = std::vector<double>(static_cast<std::size_t>(channels), 1),
                         .shift = std::vector<double>(static_cast<std::size_t>(channels), 0)};
    for (std::size_t c = 0; c < affine.scale.size(); ++c) {
      const double value = by->data<float>()[by->size() == 1 ? 0 : c];
      // Such a number rounds what it is added to, as is done on purpose.
      if (!node.is("Mul") && std::abs(value) >= 0x1p20) return std::nullopt;
      if (node.is("Mul")) affine.scale[c] = value;
      if (node.is("Add")) affine.shift[c] = value;
      if (node.is("Sub")) affine.shift[c] = -value;
    }
    return affine;
  }

  // Whether weights may be scaled so: not by so little that they might vanish.
  static bool is_moderate(const std::vector<double>& scale) {
    double most = 0;
    for (const double value : scale) most = std::max(most, std::abs(value));
    return most == 0 || most >= 0x1p-60;
  }

  bool is_along_channels(const Tensor& by, const PlanStep& reader, std::int64_t channels,
                         bool is_image) const {
    const auto output = plan_.dims(reader.outputs[0]);
    if (!output || by.rank() > output->size()) return false;
    if (by.size() == 1) return true;
    const std::size_t axis = is_image ? 1 : output->size() - 1;
    const std::size_t from_end = output->size() - axis;
    return by.size() == channels && by.rank() >= from_end &&
           by.dim(by.rank() - from_end) == channels;
  }

  // Folds a channel-wise scale and shift behind a convolution or product with constant weights into
  // weights and bias.
  bool fold_affine(std::size_t at, const StepIndex::Read& reader) {
    PlanStep& step = plan_.steps[at];
    const Node& node = *step.node;
    const bool is_conv = node.is("Conv"), is_matmul = node.is("MatMul");
    if (!(is_conv || is_matmul) || !constant(step, 1)) return false;
    const Type& weights = plan_.slots[step.inputs[1]].type;
    const Dims dims = concrete(*weights.shape).value();
    if (weights.elem != DType::float32 || (is_matmul && dims.size() != 2)) return false;
    const bool has_bias = step.inputs.size() > 2 && step.inputs[2] != no_slot;
    const Tensor* bias = constant(step, 2);
    if (has_bias && (!bias || bias->dtype() != DType::float32)) return false;
    const auto before = plan_.dims(step.outputs[0]);
    const PlanStep& next = plan_.steps[reader.step];
    if (!before || plan_.dims(next.outputs[0]) != before) return false;
    const std::int64_t channels = is_conv ? dims[0] : dims[1];
    const auto affine = affine_of(next, reader.input, channels, is_conv);
    if (!affine || !is_moderate(affine->scale)) return false;

    Tensor shifted(DType::float32, {channels});
    for (std::size_t c = 0; c < affine->shift.size(); ++c)
      shifted.mutable_data<float>()[c] = static_cast<float>(
          affine->shift[c] + (bias ? affine->scale[c] * bias->data<float>()[c] : 0));
    if (!std::ranges::all_of(affine->scale, [](double scale) { return scale == 1; }))
      step.inputs[1] = add_scaled(step.inputs[1], is_conv ? 0 : 1, affine->scale);
    step.inputs.resize(std::max<std::size_t>(step.inputs.size(), 3), no_slot);
    step.inputs[2] = add_constant(step.inputs[1], std::move(shifted));
    return true;
  }

  // The weights of a slot with their channels scaled (again).
  std::size_t add_scaled(std::size_t weights, std::int64_t axis, std::vector<double> factors) {
    const Slot& slot = plan_.slots[weights];
    std::size_t source = weights;
    if (slot.scaled) {
      source = slot.scaled->source;
      for (std::size_t c = 0; c < factors.size(); ++c) factors[c] *= slot.scaled->factors[c];
    }
    const auto scaled = std::make_shared<const ScaledWeights>(
        ScaledWeights{.source = source, .axis = axis, .factors = std::move(factors)});
    plan_.slots.push_back({.value = slot.value,
                           .source = Slot::Source::constant,
                           .type = slot.type,
                           .scaled = scaled});
    return plan_.slots.size() - 1;
  }

  // A constant made up for the plan, under the name of another one.
  std::size_t add_constant(std::size_t like, Tensor tensor) {
    plan_.slots.push_back({.value = plan_.slots[like].value,
                           .source = Slot::Source::constant,
                           .type = Type::of(tensor),
                           .constant = std::move(tensor)});
    return plan_.slots.size() - 1;
  }

  GraphPlan& plan_;
  StepIndex index_;
  int threads_;
};

}  // namespace

void fuse_steps(GraphPlan& plan, ThreadPool& pool) { StepFusion(plan, pool.size()).run(); }

}  // namespace onnxpress
