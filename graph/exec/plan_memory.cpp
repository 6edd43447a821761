// Which steps a plan needs, how long its values live and where.
#include <algorithm>
#include <utility>

#include "graph/exec/arena.h"
#include "graph/exec/plan.h"

namespace onnxpress {
namespace {

// Operators whose kernels forward their first input as their first output when both have one
// element type.
bool forwards_first_input(const PlanStep& step) {
  static constexpr std::string_view names[] = {"Identity",  "Reshape", "Flatten", "Squeeze",
                                               "Unsqueeze", "Dropout", "Cast",    "CastLike"};
  if (step.is_relayout) return step.is_view;
  return step.node->domain().empty() &&
         std::ranges::find(names, step.node->op_type()) != std::end(names);
}

class MemoryPlanner {
 public:
  explicit MemoryPlanner(GraphPlan& plan)
      : plan_(plan),
        slots_(plan.slots),
        first_(slots_.size(), no_slot),
        last_(slots_.size(), 0),
        is_output_(slots_.size(), false) {}

  void run() {
    find_lifetimes();
    add_releases();
    join_aliases();
    place();
  }

 private:
  void find_lifetimes() {
    for (std::size_t output : plan_.outputs) is_output_[output] = true;
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      const PlanStep& step = plan_.steps[i];
      if (!step.kernel) continue;
      for_each_read(step, [&](std::size_t input) { last_[input] = i; });
      for (std::size_t output : step.outputs)
        if (output != no_slot) first_[output] = last_[output] = i;
      const std::size_t input = step.inputs.empty() ? no_slot : step.inputs[0];
      const std::size_t output = step.outputs[0];
      if (input != no_slot && output != no_slot && forwards_first_input(step) &&
          slots_[input].type.elem == slots_[output].type.elem) {
        slots_[output].source = Slot::Source::alias;
        slots_[output].root = input;
      }
    }
  }

  // Which tensors go after which step; an alias goes after its own last use.
  void add_releases() {
    std::vector<bool> seen(slots_.size(), false);
    const auto release = [&](std::size_t index, std::size_t step) {
      if (seen[index] || is_output_[index] || last_[index] != step ||
          slots_[index].source == Slot::Source::constant)
        return;
      seen[index] = true;
      plan_.steps[step].release.push_back(index);
    };
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      if (!plan_.steps[i].kernel) continue;
      for_each_read(plan_.steps[i], [&](std::size_t input) { release(input, i); });
      for (std::size_t output : plan_.steps[i].outputs)
        if (output != no_slot) release(output, i);
    }
  }

  // What an alias keeps alive, its root does.
  void join_aliases() {
    for (std::size_t i = slots_.size(); i-- > 0;) {
      if (slots_[i].source != Slot::Source::alias) continue;
      const std::size_t root = storage_root(i);
      last_[root] = std::max(last_[root], last_[i]);
      if (is_output_[i]) is_output_[root] = true;
    }
  }

  std::size_t storage_root(std::size_t index) const {
    while (slots_[index].source == Slot::Source::alias) index = slots_[index].root;
    return index;
  }

  void place() {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Slot& slot = slots_[i];
      if (slot.source != Slot::Source::pool || first_[i] == no_slot) continue;
      const auto dims = slot.dims();
      const bool is_static = dims && slot.type.elem != DType::string && is_known(slot.type.elem);
      if (!is_static) ++plan_.dynamic_values;
      if (!is_static || is_output_[i]) continue;
      slot.source = Slot::Source::arena;
      slot.bytes = packed_bytes(slot.type.elem, static_cast<std::size_t>(element_count(*dims)));
      plan_.unshared_bytes += slot.bytes;
    }
    take_over_memory();

    std::vector<Lifetime> lifetimes;
    std::vector<std::size_t> planned;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].source != Slot::Source::arena || slots_[i].takes_over) continue;
      lifetimes.push_back({.bytes = slots_[i].bytes, .first = first_[i], .last = last_[i]});
      planned.push_back(i);
    }
    const ArenaLayout layout = plan_arena(lifetimes);
    for (std::size_t i = 0; i < planned.size(); ++i) slots_[planned[i]].offset = layout.offsets[i];
    for (Slot& slot : slots_)
      if (slot.takes_over) slot.offset = slots_[*slot.takes_over].offset;
    plan_.arena_bytes = layout.bytes;
  }

  // A step that may write over one of its inputs does so when nobody reads that input later.
  void take_over_memory() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      const PlanStep& step = plan_.steps[i];
      if (!step.kernel || step.outputs[0] == no_slot) continue;
      Slot& output = slots_[step.outputs[0]];
      if (output.source != Slot::Source::arena) continue;
      for (std::size_t input : overwritable_inputs(step)) {
        const std::size_t alias_root = storage_root(input);
        if (slots_[alias_root].source != Slot::Source::arena || last_[alias_root] != i) continue;
        if (slots_[alias_root].bytes != output.bytes) continue;
        const std::size_t root = slots_[alias_root].takes_over.value_or(alias_root);
        output.takes_over = root;
        last_[root] = std::max(last_[root], last_[step.outputs[0]]);
        break;
      }
    }
  }

  // No other input of the step lies in the same memory: the kernel writes before it has read all.
  bool is_read_once(const PlanStep& step, std::size_t position) const {
    const std::size_t root = storage_root(step.inputs[position]);
    for (std::size_t i = 0; i < step.inputs.size(); ++i)
      if (i != position && step.inputs[i] != no_slot && storage_root(step.inputs[i]) == root)
        return false;
    return true;
  }

  // Of an accumulating step, what it accumulates onto; of an elementwise one, any input.
  std::vector<std::size_t> overwritable_inputs(const PlanStep& step) const {
    std::vector<std::size_t> found;
    if (step.backend == "elementwise") {
      // These kernels read an element of each input before they write that of the output.
      for (std::size_t input : step.inputs)
        if (input != no_slot) found.push_back(input);
      return found;
    }
    for (const PostOp& op : step.post_ops)
      if (op.kind == PostOp::Kind::add && is_read_once(step, op.operand))
        found.push_back(step.inputs[op.operand]);
    return found;
  }

  GraphPlan& plan_;
  std::vector<Slot>& slots_;
  std::vector<std::size_t> first_, last_;  // by slot
  std::vector<bool> is_output_;
};

}  // namespace

bool is_executed(const GraphPlan& plan, const PlanStep& step) {
  return std::ranges::any_of(step.outputs, [&](std::size_t output) {
    return output != no_slot && plan.slots[output].source != Slot::Source::constant;
  });
}

void drop_unneeded_steps(GraphPlan& plan, bool all) {
  std::vector<bool> needed(plan.slots.size(), false);
  for (std::size_t output : plan.outputs) needed[output] = true;
  std::vector<PlanStep> kept;
  for (auto step = plan.steps.rbegin(); step != plan.steps.rend(); ++step) {
    const bool executed = is_executed(plan, *step);
    const bool read = std::ranges::any_of(
        step->outputs, [&](std::size_t output) { return output != no_slot && needed[output]; });
    // Constants that observers of a fused plan want to see.
    const bool kept_constant = std::ranges::any_of(
        step->outputs, [&](std::size_t output) { return output != no_slot && plan.slots[output].is_kept; });
    if (executed ? !read : all && !kept_constant) continue;
    if (executed) for_each_read(*step, [&](std::size_t input) { needed[input] = true; });
    kept.push_back(std::move(*step));
  }
  std::ranges::reverse(kept);
  plan.steps = std::move(kept);
}

Graph* GraphPlan::made_up_graph() {
  if (!made_up) {
    made_up_opsets = {{"", 24}, {"com.microsoft", 1}};
    made_up = std::make_unique<Graph>(&made_up_opsets);
  }
  return made_up.get();
}

void assign_memory(GraphPlan& plan) { MemoryPlanner(plan).run(); }

}  // namespace onnxpress
