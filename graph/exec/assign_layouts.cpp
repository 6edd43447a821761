// Which values of a fused plan have their channels last.
#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "graph/exec/plan.h"
#include "graph/exec/prepare.h"
#include "graph/kernels/relayout.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/transpose.h"

namespace onnxpress {
namespace {

bool is_image(const std::optional<Dims>& dims) {
  return dims && dims->size() >= 3 && dims->size() <= 5 && element_count(*dims) > 0;
}

// The axes of an image in the order of memory.
std::vector<std::int64_t> channels_last_order(std::size_t rank) {
  std::vector<std::int64_t> order{0};
  for (std::size_t axis = 2; axis < rank; ++axis) order.push_back(static_cast<std::int64_t>(axis));
  order.push_back(1);
  return order;
}

Dims permuted(const Dims& dims, const std::vector<std::int64_t>& order) {
  Dims result;
  for (std::int64_t axis : order) result.push_back(dims[static_cast<std::size_t>(axis)]);
  return result;
}

class LayoutPlanner {
 public:
  explicit LayoutPlanner(GraphPlan& plan) : plan_(plan) {}

  void run() {
    for (PlanStep& step : plan_.steps) place(std::move(step));
    PlanStep end{.node = steps_.empty() ? nullptr : steps_.back().node};
    for (std::size_t& output : plan_.outputs) output = as(output, Layout::row_major, end);
    plan_.steps = std::move(steps_);
  }

 private:
  void place(PlanStep step) {
    if (takes_channels_last(step))
      place_image_step(step);
    else if (is_elementwise(step) && follows_channels_last(step))
      place_elementwise(step);
    else
      place_row_major(step);
    steps_.push_back(std::move(step));
  }

  // A kernel of its own for such images.
  bool takes_channels_last(const PlanStep& step) const {
    if (!step.subgraphs.empty() || step.inputs.empty() || step.inputs[0] == no_slot) return false;
    if (!is_image(plan_.dims(step.inputs[0])) || !is_image(plan_.dims(step.outputs[0])))
      return false;
    const StepPreparation context(plan_, step, 1);
    for (const KernelDef* fast : operators().kernels(*step.node))
      if (fast->supports(context)) return fast->channels_last;
    return false;
  }

  void place_image_step(PlanStep& step) {
    // The kernels bring an image of few channels into their layout themselves.
    const auto dims = plan_.slots[step.inputs[0]].dims();
    if (dims->at(1) > 4) step.inputs[0] = as(step.inputs[0], Layout::channels_last, step);
    for (const PostOp& op : step.post_ops)
      if (op.kind == PostOp::Kind::add)
        step.inputs[op.operand] = as(step.inputs[op.operand], Layout::channels_last, step);
    set_channels_last(step.outputs[0]);
  }

  bool has_one_scale(const PlanStep& step) const {
    const auto dims = step.inputs.size() > 1 ? plan_.slots[step.inputs[1]].dims() : std::nullopt;
    return dims && element_count(*dims) == 1;
  }

  bool is_elementwise(const PlanStep& step) const {
    if (!step.subgraphs.empty() || step.outputs.size() != 1) return false;
    const OpDef* op = operators().find(*step.node);
    if (step.node->is("QuantizeLinear") || step.node->is("DequantizeLinear"))
      return has_one_scale(step);
    return op && op->axes == broadcast_axes &&
           (step.node->opset() >= 7 || !step.node->domain().empty());
  }

  // An input is an image with channels last, and all others can be brought into that order.
  bool follows_channels_last(const PlanStep& step) const {
    if (!is_image(plan_.dims(step.outputs[0]))) return false;
    const std::size_t rank = plan_.slots[step.outputs[0]].type.shape->size();
    bool follows = false;
    for (std::size_t input : step.inputs) {
      if (input == no_slot) continue;
      const Slot& slot = plan_.slots[input];
      const auto dims = slot.dims();
      if (!dims) return false;
      follows = follows || (slot.layout == Layout::channels_last && dims->size() == rank);
      const bool is_scalar = element_count(*dims) == 1;
      const bool fits = is_scalar || slot.source == Slot::Source::constant || dims->size() == rank;
      if (!fits || dims->size() > rank) return false;
    }
    return follows;
  }

  void place_elementwise(PlanStep& step) {
    const std::size_t rank = plan_.slots[step.outputs[0]].type.shape->size();
    for (std::size_t& input : step.inputs) {
      if (input == no_slot) continue;
      const Dims dims = *plan_.slots[input].dims();
      if (element_count(dims) == 1 && dims.size() < rank) continue;
      input = plan_.slots[input].source == Slot::Source::constant
                  ? permuted_constant(input, rank)
                  : as(input, Layout::channels_last, step);
    }
    set_channels_last(step.outputs[0]);
    step.is_layout_blind = true;
  }

  void place_row_major(PlanStep& step) {
    for (std::size_t& input : step.inputs)
      if (input != no_slot) input = as(input, Layout::row_major, step);
    for (auto& [name, subgraph] : step.subgraphs)
      for (std::size_t& captured : subgraph.captured)
        captured = as(captured, Layout::row_major, step);
  }

  void set_channels_last(std::size_t index) {
    Slot& slot = plan_.slots[index];
    const Dims dims = *slot.dims();
    slot.layout = Layout::channels_last;
    slot.stored =
        Type::tensor(slot.type.elem, to_shape(permuted(dims, channels_last_order(dims.size()))));
  }

  // The slot with the value of `index` in `layout`, for `step`; a step that makes it comes before.
  std::size_t as(std::size_t index, Layout layout, const PlanStep& step) {
    if (plan_.slots[index].layout == layout) return index;
    const auto [known, is_new] = other_layout_.try_emplace(index, plan_.slots.size());
    if (!is_new) return known->second;
    const std::size_t other = known->second;
    other_layout_.emplace(other, index);
    plan_.slots.push_back({.value = plan_.slots[index].value, .type = plan_.slots[index].type});
    if (layout == Layout::channels_last) set_channels_last(other);
    const Slot& from = plan_.slots[index];
    const Dims dims = *from.dims();
    PlanStep relayout{.node = step.node, .backend = "layout", .is_relayout = true};
    relayout.is_view = dims[1] == 1 || element_count(std::span(dims).subspan(2)) == 1;
    relayout.kernel = make_relayout(from.type.elem, dims, from.layout, relayout.is_view);
    relayout.inputs = {index};
    relayout.outputs = {other};
    steps_.push_back(std::move(relayout));
    return other;
  }

  // A constant with its axes in the order of memory of images of that rank.
  std::size_t permuted_constant(std::size_t index, std::size_t rank) {
    const auto [known, is_new] = permuted_constants_.try_emplace({index, rank}, plan_.slots.size());
    if (!is_new) return known->second;
    const Tensor& tensor = plan_.slots[index].constant;
    Dims dims = tensor.dims();
    dims.insert(dims.begin(), rank - dims.size(), 1);
    Tensor moved = transposed(tensor.reshaped(dims), channels_last_order(rank));
    plan_.slots.push_back({.value = plan_.slots[index].value,
                           .source = Slot::Source::constant,
                           .type = Type::of(moved),
                           .constant = std::move(moved)});
    return known->second;
  }

  GraphPlan& plan_;
  std::vector<PlanStep> steps_;
  std::map<std::size_t, std::size_t> other_layout_;
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> permuted_constants_;
};

}  // namespace

void assign_layouts(GraphPlan& plan) { LayoutPlanner(plan).run(); }

}  // namespace onnxpress
