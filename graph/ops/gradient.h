// How gradients go back through an operator: rows beside OpDef, called by a training plan in reverse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "graph/ops/kernel.h"

namespace onnxpress {

// One backward call of a node: from the gradients of its outputs to those of its inputs.
class BackwardContext {
 public:
  virtual ~BackwardContext() = default;
  virtual std::size_t input_count() const = 0;
  // Values of the forward call; nullptr when omitted. Only those that the row says it reads.
  virtual const Tensor* input(std::size_t index) const = 0;
  virtual const Tensor* output(std::size_t index) const = 0;
  // nullptr when nothing that counts depends on the output: zero.
  virtual const Tensor* output_gradient(std::size_t index) const = 0;
  // Whether anything is trained through this input.
  virtual bool wants_gradient(std::size_t index) const = 0;
  // Of the input and its gradient, also where the contents are not there.
  virtual DType input_dtype(std::size_t index) const = 0;
  virtual const Dims& input_dims(std::size_t index) const = 0;
  // The gradient of input `index`, of its type and dims, uninitialized; the kernel writes all of it,
  // once. Gradients of several readers are summed by the plan.
  virtual Tensor& gradient(std::size_t index) = 0;
  // Sets a gradient that shares the storage of an output's (Reshape).
  virtual void forward_gradient(std::size_t index, Tensor tensor) = 0;
  virtual ThreadPool& pool() = 0;

  const Tensor& required_input(std::size_t index) const;   // throws Error when omitted
  const Tensor& required_output(std::size_t index) const;  // the same
  // Of an output that something depends on; throws Error when nothing does.
  const Tensor& required_gradient(std::size_t index) const;
};

using BackwardKernel = std::function<void(BackwardContext&)>;

inline constexpr std::uint64_t all_values = std::numeric_limits<std::uint64_t>::max();

// The plain row ("reference") is tried last and supports every node of its versions.
struct GradientDef {
  std::string name;
  std::string domain;
  std::int64_t since = 1;
  std::int64_t until = std::numeric_limits<std::int64_t>::max();
  std::string backend = "reference";
  bool (*supports)(const PrepareContext&) = nullptr;  // nullptr: every node of the versions
  BackwardKernel (*prepare)(const PrepareContext&) = nullptr;
  // Bit i: reads the contents of input (output) i; others may be freed or overwritten. Dims and
  // types are known of all.
  std::uint64_t reads_inputs = all_values;
  std::uint64_t reads_outputs = all_values;
  // Optional: which of `reads_inputs` are read when only the inputs in `wanted` (bits) get
  // gradients: a product reads the other factor.
  std::uint64_t (*reads_for)(std::uint64_t wanted) = nullptr;

  std::uint64_t inputs_read(std::uint64_t wanted) const {
    return reads_for != nullptr ? reads_inputs & reads_for(wanted) : reads_inputs;
  }
};

// Runs `kernel` on float32 copies of what is float16, bfloat16 or narrower; memory that cannot be
// had is an Error.
void run_gradient(const BackwardKernel& kernel, BackwardContext& context);

// Gradients of one node by itself, for tests: undefined where not wanted. `inputs`, `outputs` and
// `output_gradients` are as long as the node's (nullptr: omitted, or without effect).
std::vector<Tensor> differentiate(const GradientDef& gradient, const Node& node,
                                  std::span<const Tensor* const> inputs,
                                  std::span<const Tensor* const> outputs,
                                  std::span<const Tensor* const> output_gradients,
                                  const std::vector<bool>& wanted, ThreadPool& pool);

}  // namespace onnxpress
