// Steps as operations that a kernel applies to its result: internal to graph/exec.
#pragma once

#include <optional>

#include "graph/exec/plan.h"

namespace onnxpress {

// What a step computes elementwise from its input `position`, which is float32 and has the dims of
// the output; nothing when it is no such operation. An `add` has no operand yet: `other` is set to
// the position of the input that is added.
struct StepAsPostOp {
  PostOp op;
  std::optional<std::size_t> other;
};
std::optional<StepAsPostOp> as_post_op(const GraphPlan& plan, const PlanStep& step,
                                       std::size_t position);

// The only element of a float32 constant, as the step's input; nothing when it is another thing.
std::optional<float> scalar_input(const GraphPlan& plan, const PlanStep& step,
                                  std::size_t position);

}  // namespace onnxpress
