#include "passes/quantize/rounding.h"

#include "graph/base/error.h"

namespace onnxpress {

std::vector<RoundingResult> round_weights(const Model&, const std::vector<RoundingTask>& tasks, PassContext& context,
                                          const QuantizeRequest& request) {
  require(request.rounding == Rounding::nearest, "only method=rtn is built yet");
  std::vector<RoundingResult> results;
  for (const RoundingTask& task : tasks) {
    const Tensor& weight = *task.weight.value->constant();
    RoundingResult& result = results.emplace_back();
    if (const auto grid = min_max_grid(weight, task.type, task.granularity, task.grid, &context.pool))
      result.quantized = round_to_nearest(weight, *grid, &context.pool);
  }
  return results;
}

}  // namespace onnxpress
