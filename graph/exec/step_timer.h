// Times the steps of a run for EngineOptions::on_step: internal to graph/exec.
#pragma once

#include <chrono>

#include "graph/exec/plan.h"

namespace onnxpress {

// Tells the engine's owner how long one step took, when it goes out of scope; nothing unless the
// owner asked for it. A step that throws is told too.
class StepTimer {
 public:
  StepTimer(const EngineResources& resources, const PlanStep& step)
      : resources_(resources), step_(step) {
    if (resources_.on_step) start_ = Clock::now();
  }
  ~StepTimer() {
    if (!resources_.on_step) return;
    const auto micros = [](Clock::duration time) {
      return std::chrono::duration<double, std::micro>(time).count();
    };
    const Clock::time_point end = Clock::now();
    resources_.on_step({.node_name = step_.node->name,
                        .op_type = step_.is_relayout ? std::string_view("(layout)")
                                                     : step_.node->op_type(),
                        .backend = step_.backend,
                        .macs = step_.macs,
                        .start_us = micros(start_ - resources_.started),
                        .duration_us = micros(end - start_)});
  }
  StepTimer(const StepTimer&) = delete;
  StepTimer& operator=(const StepTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  const EngineResources& resources_;
  const PlanStep& step_;
  Clock::time_point start_;
};

}  // namespace onnxpress
