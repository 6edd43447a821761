#include "graph/ops/gradient.h"

#include <algorithm>
#include <map>
#include <new>
#include <optional>
#include <utility>

#include "graph/base/convert.h"
#include "graph/ops/compute_type.h"

namespace onnxpress {
namespace {

bool is_narrow(DType type) { return float_compute_type(type) != type; }

// Shows narrow floats as float32.
class WideningContext final : public BackwardContext {
 public:
  explicit WideningContext(BackwardContext& inner) : inner_(inner) {}

  std::size_t input_count() const override { return inner_.input_count(); }
  const Tensor* input(std::size_t index) const override {
    return widened(inner_.input(index), inputs_[index]);
  }
  const Tensor* output(std::size_t index) const override {
    return widened(inner_.output(index), outputs_[index]);
  }
  const Tensor* output_gradient(std::size_t index) const override {
    return widened(inner_.output_gradient(index), output_gradients_[index]);
  }
  bool wants_gradient(std::size_t index) const override { return inner_.wants_gradient(index); }
  DType input_dtype(std::size_t index) const override {
    return float_compute_type(inner_.input_dtype(index));
  }
  const Dims& input_dims(std::size_t index) const override { return inner_.input_dims(index); }

  Tensor& gradient(std::size_t index) override {
    if (!is_narrow(inner_.input_dtype(index))) return inner_.gradient(index);
    return results_[index] = Tensor::uninitialized(DType::float32, inner_.input_dims(index));
  }
  void forward_gradient(std::size_t index, Tensor tensor) override {
    if (is_narrow(inner_.input_dtype(index)))
      results_[index] = std::move(tensor);
    else
      inner_.forward_gradient(index, std::move(tensor));
  }
  ThreadPool& pool() override { return inner_.pool(); }

  void finish() {
    for (const auto& [index, tensor] : results_)
      inner_.forward_gradient(index, tensor.cast(inner_.input_dtype(index)));
  }

 private:
  static const Tensor* widened(const Tensor* tensor, std::optional<Tensor>& kept) {
    if (tensor == nullptr || !is_narrow(tensor->dtype())) return tensor;
    if (!kept) kept = tensor->cast(DType::float32);
    return &*kept;
  }

  BackwardContext& inner_;
  mutable std::map<std::size_t, std::optional<Tensor>> inputs_, outputs_, output_gradients_;
  std::map<std::size_t, Tensor> results_;
};

class SingleGradient final : public BackwardContext {
 public:
  SingleGradient(std::span<const Tensor* const> inputs, std::span<const Tensor* const> outputs,
                 std::span<const Tensor* const> output_gradients, const std::vector<bool>& wanted,
                 const GradientDef& row, ThreadPool& pool)
      : inputs_(inputs),
        outputs_(outputs),
        output_gradients_(output_gradients),
        wanted_(wanted),
        pool_(pool),
        results_(inputs.size()) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < wanted.size() && i < 64; ++i)
      if (wanted[i]) bits |= std::uint64_t{1} << i;
    reads_inputs_ = row.inputs_read(bits);
    reads_outputs_ = row.reads_outputs;
  }

  std::size_t input_count() const override { return inputs_.size(); }
  const Tensor* input(std::size_t index) const override {
    const Tensor* tensor = index < inputs_.size() ? inputs_[index] : nullptr;
    require(tensor == nullptr || is_read(reads_inputs_, index),
            "the gradient reads input {}, which its row does not say", index);
    return tensor;
  }
  const Tensor* output(std::size_t index) const override {
    require(is_read(reads_outputs_, index),
            "the gradient reads output {}, which its row does not say", index);
    return index < outputs_.size() ? outputs_[index] : nullptr;
  }
  const Tensor* output_gradient(std::size_t index) const override {
    return index < output_gradients_.size() ? output_gradients_[index] : nullptr;
  }
  bool wants_gradient(std::size_t index) const override {
    return index < wanted_.size() && wanted_[index];
  }
  DType input_dtype(std::size_t index) const override { return inputs_[index]->dtype(); }
  const Dims& input_dims(std::size_t index) const override { return inputs_[index]->dims(); }
  Tensor& gradient(std::size_t index) override {
    return results_.at(index) = Tensor::uninitialized(input_dtype(index), input_dims(index));
  }
  void forward_gradient(std::size_t index, Tensor tensor) override {
    results_.at(index) = std::move(tensor);
  }
  ThreadPool& pool() override { return pool_; }

  std::vector<Tensor> take() { return std::move(results_); }

 private:
  static bool is_read(std::uint64_t mask, std::size_t index) {
    return index >= 64 || (mask >> index & 1) != 0;
  }

  std::span<const Tensor* const> inputs_, outputs_, output_gradients_;
  const std::vector<bool>& wanted_;
  std::uint64_t reads_inputs_ = 0, reads_outputs_ = 0;
  ThreadPool& pool_;
  std::vector<Tensor> results_;
};

class GivenTypes final : public PrepareContext {
 public:
  GivenTypes(const Node& node, std::span<const Tensor* const> inputs,
             std::span<const Tensor* const> outputs, int threads)
      : node_(node), inputs_(inputs), threads_(threads) {
    for (const Tensor* tensor : inputs) input_types_.push_back(tensor ? Type::of(*tensor) : Type());
    for (const Tensor* tensor : outputs)
      output_types_.push_back(tensor ? Type::of(*tensor) : Type());
  }

  const Node& node() const override { return node_; }
  const Type* input_type(std::size_t index) const override {
    return index < inputs_.size() && inputs_[index] != nullptr ? &input_types_[index] : nullptr;
  }
  const Type* output_type(std::size_t index) const override {
    const bool is_there = index < output_types_.size() && output_types_[index].is_tensor();
    return is_there ? &output_types_[index] : nullptr;
  }
  const Tensor* constant_input(std::size_t) const override { return nullptr; }
  int threads() const override { return threads_; }

 private:
  const Node& node_;
  std::span<const Tensor* const> inputs_;
  std::vector<Type> input_types_, output_types_;
  int threads_;
};

}  // namespace

const Tensor& BackwardContext::required_input(std::size_t index) const {
  const Tensor* tensor = input(index);
  require(tensor != nullptr, "input {} is required", index);
  return *tensor;
}

const Tensor& BackwardContext::required_output(std::size_t index) const {
  const Tensor* tensor = output(index);
  require(tensor != nullptr, "output {} is required", index);
  return *tensor;
}

const Tensor& BackwardContext::required_gradient(std::size_t index) const {
  const Tensor* tensor = output_gradient(index);
  require(tensor != nullptr, "the gradient of output {} is required", index);
  return *tensor;
}

void run_gradient(const BackwardKernel& kernel, BackwardContext& context) {
  try {
    WideningContext widening(context);
    kernel(widening);
    widening.finish();
  } catch (const std::bad_alloc&) {
    fail("not enough memory");
  }
}

std::vector<Tensor> differentiate(const GradientDef& gradient, const Node& node,
                                  std::span<const Tensor* const> inputs,
                                  std::span<const Tensor* const> outputs,
                                  std::span<const Tensor* const> output_gradients,
                                  const std::vector<bool>& wanted, ThreadPool& pool) {
  SingleGradient context(inputs, outputs, output_gradients, wanted, gradient, pool);
  in_context([&] { return node.describe(); }, [&] {
    const GivenTypes types(node, inputs, outputs, pool.size());
    run_gradient(gradient.prepare(types), context);
  });
  return context.take();
}

}  // namespace onnxpress
