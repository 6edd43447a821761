// Values that are computed again in the run back instead of being kept from the forward run: what is
// cheap beside the products and convolutions before it (selective recomputation, Korthikanti et al.
// 2022, "Reducing Activation Recomputation in Large Transformer Models").
#include <algorithm>
#include <string_view>
#include <utility>

#include "graph/exec/backward_plan.h"
#include "graph/ops/evaluate.h"

namespace onnxpress {
namespace {

constexpr std::string_view cheap_operators[] = {
    "Abs",         "AveragePool",   "BatchNormalization", "Cast",       "Celu",      "Clip",
    "Dropout",     "Elu",           "Erf",                "Exp",        "FastGelu",  "Flatten",
    "Gelu",        "GroupNormalization", "HardSigmoid",   "HardSwish",  "Identity",  "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "LogSoftmax",      "MaxPool",    "Mish",      "Neg",
    "QuickGelu",   "RMSNormalization", "Relu",            "Reshape",    "Selu",      "Sigmoid",
    "Softmax",     "Softplus",      "Softsign",           "Sqrt",       "Squeeze",   "Swish",
    "Tanh",        "ThresholdedRelu", "Transpose",        "Unsqueeze",
};

class AgainContext final : public KernelContext {
 public:
  AgainContext(std::span<const Tensor* const> inputs, EngineResources& resources)
      : inputs_(inputs), resources_(resources) {}

  std::size_t input_count() const override { return inputs_.size(); }
  const Tensor* input(std::size_t index) const override {
    return index < inputs_.size() ? inputs_[index] : nullptr;
  }
  bool wants_output(std::size_t index) const override { return index == 0; }
  Tensor& output(std::size_t index, DType type, const Dims& dims) override {
    return (index == 0 ? result_ : unwanted_) = resources_.buffers.tensor(type, dims);
  }
  void forward_output(std::size_t index, Tensor tensor) override {
    if (index == 0) result_ = std::move(tensor);
  }
  ThreadPool& pool() override { return resources_.pool; }
  std::vector<RuntimeValue> run_subgraph(std::string_view, std::span<const RuntimeValue>) override {
    fail("a node that runs a subgraph is not computed again");
  }

  Tensor take() { return std::move(result_); }

 private:
  std::span<const Tensor* const> inputs_;
  EngineResources& resources_;
  Tensor result_, unwanted_;
};

}  // namespace

// The first output of a cheap operator on one computed value.
bool BackwardPlan::is_cheap(const Value& value) const {
  const Node* node = value.producer();
  if (!node || node->output(0) != &value || inference_->known_value(&value)) return false;
  if (std::ranges::find(cheap_operators, node->op_type()) == std::end(cheap_operators)) return false;
  const OpDef* op = operators().find(*node);
  if (!op || !op->prepare || !op->deterministic) return false;
  for (std::size_t i = 1; i < node->input_count(); ++i)
    if (const Value* input = node->input(i); input && !input->is_input() && !input->is_constant() &&
                                             !inference_->known_value(input))
      return false;
  return node->input_count() > 0 && node->input(0);
}

void BackwardPlan::recompute(std::size_t index, const EngineResources& resources) {
  if (std::exchange(values[index].is_recomputed, true)) return;
  const Node& node = *values[index].value->producer();
  BackwardStep step = describe(node, resources);
  if (!resources.reference)
    for (const KernelDef* row : operators().kernels(node)) {
      if (!row->supports(*step.preparation)) continue;
      step.forward = row->prepare(*step.preparation);
      step.backend = row->backend;
      break;
    }
  if (!step.forward) {
    step.forward = operators().find(node)->prepare(*step.preparation);
    step.backend = "reference";
  }
  for (const std::size_t input : step.inputs)
    if (input != no_slot) read(step, input, resources);
  steps.push_back(std::move(step));
}

Tensor run_again(const BackwardStep& step, std::span<const Tensor* const> inputs, EngineResources& resources) {
  AgainContext context(inputs, resources);
  run_kernel(step.forward, context);
  return context.take();
}

}  // namespace onnxpress
