// Plan-time view of a node over tables of types and constants: internal to graph/exec.
#pragma once

#include <functional>

#include "graph/ops/kernel.h"

namespace onnxpress {

class NodePreparation : public PrepareContext {
 public:
  using TypeOf = std::function<const Type*(const Value&)>;
  using ConstantOf = std::function<const Tensor*(const Value&)>;

  NodePreparation(const Node& node, TypeOf type_of, ConstantOf constant_of, int threads)
      : node_(node),
        type_of_(std::move(type_of)),
        constant_of_(std::move(constant_of)),
        threads_(threads) {}

  const Node& node() const override { return node_; }
  const Type* input_type(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value ? type_of_(*value) : nullptr;
  }
  const Type* output_type(std::size_t index) const override {
    const Value* value = node_.output(index);
    return value ? type_of_(*value) : nullptr;
  }
  const Tensor* constant_input(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value ? constant_of_(*value) : nullptr;
  }
  int threads() const override { return threads_; }

 private:
  const Node& node_;
  TypeOf type_of_;
  ConstantOf constant_of_;
  int threads_;
};

}  // namespace onnxpress
