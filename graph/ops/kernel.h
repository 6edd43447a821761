// How kernels are prepared for a node and called.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ir/graph.h"
#include "graph/ir/runtime_value.h"

namespace onnxpress {

// How the elements of an image [N,C,spatial...] lie in memory: as it says, or with the channels
// innermost, as [N,spatial...,C] row-major.
enum class Layout { row_major, channels_last };

// An elementwise operation that a kernel applies to its first output before it stores it.
struct PostOp {
  enum class Kind {
    relu,
    leaky_relu,    // alpha: slope below 0
    clip,          // to [alpha, beta]
    elu,           // alpha
    sigmoid,
    tanh,
    hard_sigmoid,  // clip(alpha * x + beta, 0, 1)
    hard_swish,    // x * clip(x / 6 + 1/2, 0, 1)
    swish,         // x * sigmoid(alpha * x)
    mish,
    gelu,          // with erf
    gelu_tanh,     // with tanh
    linear,        // alpha * x + beta
    add,           // input `operand`, of the output's dims and layout
  };
  Kind kind = Kind::relu;
  float alpha = 0;
  float beta = 0;
  std::size_t operand = 0;
};

// Plan-time knowledge of one node, which outlives the kernels prepared for it. Types are concrete
// where all dims are known before the run.
class PrepareContext {
 public:
  virtual ~PrepareContext() = default;
  virtual const Node& node() const = 0;
  virtual const Type* input_type(std::size_t index) const = 0;  // nullptr when omitted
  virtual const Type* output_type(std::size_t index) const = 0;
  virtual const Tensor* constant_input(
      std::size_t index) const = 0;  // aligned, lives as long as the plan
  virtual int threads() const = 0;
  // Of a fused step. The types above have the dims as the operators see them whatever the layout;
  // the tensors of a call have them in the order of memory.
  virtual Layout input_layout(std::size_t) const { return Layout::row_major; }
  virtual Layout output_layout() const { return Layout::row_major; }
  virtual std::span<const PostOp> post_ops() const { return {}; }
  // The kernel may use algorithms whose rounding errors are larger than those of the operator's
  // formula, up to 1e-5 of the output's range (Winograd's convolution).
  virtual bool may_approximate() const { return false; }
  // The kernel has what it needs of a constant input and does not read it when it is called.
  virtual void packed(std::size_t) const {}
};

// One call of a kernel. Inputs are read-only; outputs are requested with their dims and come from
// the arena (known sizes) or the pool, uninitialized.
class KernelContext {
 public:
  virtual ~KernelContext() = default;
  virtual std::size_t input_count() const = 0;
  // nullptr when omitted; throws Error for a sequence or optional.
  virtual const Tensor* input(std::size_t index) const = 0;
  virtual bool wants_output(std::size_t index) const = 0;
  virtual Tensor& output(std::size_t index, DType type, const Dims& dims) = 0;
  // Sets an output that shares an input's storage (Reshape, Identity).
  virtual void forward_output(std::size_t index, Tensor tensor) = 0;
  virtual ThreadPool& pool() = 0;
  // Runs a subgraph of the node (If, Loop, Scan) with the given values for its inputs.
  virtual std::vector<RuntimeValue> run_subgraph(std::string_view attribute,
                                                 std::span<const RuntimeValue> inputs) = 0;
  // An input of any kind, undefined when omitted, and an output of any kind, which may share what
  // inputs hold. Contexts that only know tensors keep these defaults.
  virtual RuntimeValue input_value(std::size_t index) const;
  virtual void forward_value(std::size_t index, RuntimeValue value);

  const Tensor& required_input(std::size_t index) const;       // throws Error when omitted
  RuntimeValue required_input_value(std::size_t index) const;  // the same
};

using Kernel = std::function<void(KernelContext&)>;

}  // namespace onnxpress
