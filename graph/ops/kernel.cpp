#include "graph/ops/kernel.h"

namespace onnxpress {

const Tensor& KernelContext::required_input(std::size_t index) const {
  const Tensor* tensor = input(index);
  require(tensor != nullptr, "input {} is required", index);
  return *tensor;
}

RuntimeValue KernelContext::required_input_value(std::size_t index) const {
  RuntimeValue value = input_value(index);
  require(value.defined(), "input {} is missing", index);
  return value;
}

RuntimeValue KernelContext::input_value(std::size_t index) const {
  const Tensor* tensor = input(index);
  return tensor != nullptr ? *tensor : Tensor();
}

void KernelContext::forward_value(std::size_t index, RuntimeValue value) {
  forward_output(index, std::move(value).tensor());
}

}  // namespace onnxpress
