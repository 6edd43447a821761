#include "graph/ops/evaluate.h"

#include <new>
#include <stdexcept>
#include <utility>

namespace onnxpress {
namespace {

class SinglePrepare final : public PrepareContext {
 public:
  SinglePrepare(const Node& node, std::span<const Tensor* const> inputs, int threads)
      : node_(node), inputs_(inputs), threads_(threads) {
    for (const Tensor* tensor : inputs)
      types_.push_back(tensor != nullptr ? Type::of(*tensor) : Type());
  }

  const Node& node() const override { return node_; }
  const Type* input_type(std::size_t index) const override {
    return index < inputs_.size() && inputs_[index] != nullptr ? &types_[index] : nullptr;
  }
  const Type* output_type(std::size_t index) const override {
    const Value* value = node_.output(index);
    return value != nullptr ? &value->type : nullptr;
  }
  const Tensor* constant_input(std::size_t) const override { return nullptr; }
  int threads() const override { return threads_; }

 private:
  const Node& node_;
  std::span<const Tensor* const> inputs_;
  std::vector<Type> types_;
  int threads_;
};

class SingleCall final : public KernelContext {
 public:
  SingleCall(const Node& node, std::span<const Tensor* const> inputs, ThreadPool& pool)
      : node_(node), inputs_(inputs), pool_(pool), outputs_(node.output_count()) {}

  std::size_t input_count() const override { return inputs_.size(); }
  const Tensor* input(std::size_t index) const override {
    return index < inputs_.size() ? inputs_[index] : nullptr;
  }
  bool wants_output(std::size_t index) const override { return node_.output(index) != nullptr; }
  Tensor& output(std::size_t index, DType type, const Dims& dims) override {
    return outputs_.at(index) = Tensor::uninitialized(type, dims);
  }
  void forward_output(std::size_t index, Tensor tensor) override {
    outputs_.at(index) = std::move(tensor);
  }
  ThreadPool& pool() override { return pool_; }
  std::vector<RuntimeValue> run_subgraph(std::string_view, std::span<const RuntimeValue>) override {
    fail("{} runs a subgraph: it needs the engine", node_.describe());
  }

  std::vector<Tensor> take() { return std::move(outputs_); }

 private:
  const Node& node_;
  std::span<const Tensor* const> inputs_;
  ThreadPool& pool_;
  std::vector<Tensor> outputs_;
};

}  // namespace

std::vector<Tensor> evaluate(const OpDef& op, const Node& node,
                             std::span<const Tensor* const> inputs, ThreadPool& pool) {
  require(op.prepare != nullptr, "{}: no kernel for version {}", node.describe(), node.opset());
  SingleCall call(node, inputs, pool);
  in_context([&] { return node.describe(); },
             [&] { run_kernel(op.prepare(SinglePrepare(node, inputs, pool.size())), call); });
  return call.take();
}

void run_kernel(const Kernel& kernel, KernelContext& context) {
  try {
    kernel(context);
  } catch (const std::bad_alloc&) {
    fail("not enough memory");
  } catch (const std::length_error&) {  // more elements than a container can have
    fail("not enough memory");
  }
}

}  // namespace onnxpress
