#include "passes/convert/value_ranges.h"

#include <algorithm>
#include <cmath>

#include "graph/base/random.h"
#include "graph/exec/engine.h"

namespace onnxpress {
namespace {

class Largest : public Observer {
 public:
  Largest(const Graph& graph, ValueRanges& ranges) : graph_(graph), ranges_(ranges) {}

  bool wants(const Value& value) override { return &value.graph() == &graph_; }
  void observe(const Value& value, const Tensor& tensor) override {
    if (tensor.dtype() != DType::float32) return;
    float largest = 0;
    for (const float x : tensor.data<float>())
      if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
    double& known = ranges_.largest[value.name()];
    known = std::max(known, double{largest});
  }

 private:
  const Graph& graph_;
  ValueRanges& ranges_;
};

}  // namespace

ValueRanges observe_ranges(const Model& model, PassContext& context) {
  constexpr std::uint64_t generated_sets = 4;
  ValueRanges ranges;
  Engine engine(model, {.threads = context.pool.size()});
  Largest observer(engine.model().graph, ranges);
  if (context.calibration == nullptr) {
    ranges.generated = true;
    ranges.source = "generated inputs";
    for (std::uint64_t i = 0; i < generated_sets; ++i) {
      engine.run(std::span<const Tensor>(probe_inputs(model, Random(context.seed).split(i).next())),
                 &observer);
      ++ranges.samples;
    }
    return ranges;
  }
  ranges.generated = context.calibration->generated();
  ranges.source = context.calibration->description();
  context.calibration->rewind();
  for (Batch batch; context.calibration->next(batch);) {
    if (batch.values.empty())
      engine.run(std::span<const Tensor>(batch.inputs), &observer);
    else
      engine.run(std::span<const RuntimeValue>(batch.values), &observer);
    ranges.samples += batch.samples;
  }
  return ranges;
}

}  // namespace onnxpress
