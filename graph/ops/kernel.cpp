#include "graph/ops/kernel.h"

namespace onnxpress {

const Tensor& KernelContext::required_input(std::size_t index) const {
  const Tensor* tensor = input(index);
  require(tensor != nullptr, "input {} is required", index);
  return *tensor;
}

}  // namespace onnxpress
