// Who reads a plan's slots: internal to graph/exec.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "graph/exec/plan.h"

namespace onnxpress {

// Reads of every slot by steps that are executed. Whoever changes a step's inputs says so here.
class StepIndex {
 public:
  struct Read {
    std::size_t step = 0;
    std::size_t input = 0;
    bool operator==(const Read&) const = default;
  };

  explicit StepIndex(const GraphPlan& plan)
      : reads_(plan.slots.size()),
        is_kept_(plan.slots.size(), false),
        producer_(plan.slots.size()) {
    for (std::size_t output : plan.outputs) is_kept_[output] = true;
    for (std::size_t i = 0; i < plan.slots.size(); ++i)
      if (plan.slots[i].is_kept) is_kept_[i] = true;
    for (std::size_t i = 0; i < plan.steps.size(); ++i) {
      const PlanStep& step = plan.steps[i];
      for (std::size_t k = 0; k < step.inputs.size(); ++k)
        if (step.inputs[k] != no_slot) reads_[step.inputs[k]].push_back({i, k});
      for (const auto& [name, subgraph] : step.subgraphs)
        for (std::size_t captured : subgraph.captured) is_kept_[captured] = true;
      for (std::size_t output : step.outputs)
        if (output != no_slot) producer_[output] = i;
    }
  }

  // The one read of a slot that is neither an output of the plan nor captured by a subgraph nor
  // kept.
  std::optional<Read> only_reader(std::size_t slot) const {
    if (slot >= reads_.size() || is_kept_[slot] || reads_[slot].size() != 1) return std::nullopt;
    return reads_[slot][0];
  }
  // The step that produces the slot.
  std::optional<std::size_t> producer(std::size_t slot) const {
    return slot < producer_.size() ? producer_[slot] : std::nullopt;
  }

  // Input `from_input` of step `from` is now input `input` of step `step`.
  void move_read(std::size_t slot, std::size_t from, std::size_t from_input, std::size_t step,
                 std::size_t input) {
    std::ranges::replace(reads_[slot], Read{from, from_input}, Read{step, input});
  }

  // How many inputs read a slot that is neither an output of the plan nor captured nor kept;
  // nothing for others.
  std::optional<std::size_t> readers(std::size_t slot) const {
    return is_kept_[slot] ? std::nullopt : std::optional(reads_[slot].size());
  }

  // The step at `at` with these inputs is no more.
  void forget(std::size_t at, const std::vector<std::size_t>& inputs) {
    for (std::size_t slot : inputs)
      if (slot < reads_.size())
        std::erase_if(reads_[slot], [&](const Read& read) { return read.step == at; });
  }
  // A step stands at `at` now.
  void add(const PlanStep& step, std::size_t at) {
    for (std::size_t k = 0; k < step.inputs.size(); ++k)
      if (step.inputs[k] < reads_.size()) reads_[step.inputs[k]].push_back({at, k});
    for (std::size_t output : step.outputs)
      if (output != no_slot) producer_[output] = at;
  }

 private:
  std::vector<std::vector<Read>> reads_;  // by slot; constants made up later have none
  std::vector<bool> is_kept_;
  std::vector<std::optional<std::size_t>> producer_;
};

}  // namespace onnxpress
