// A oneDNN primitive as a Kernel: operands, reorders around it, weights packed once.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "graph/kernels/onednn.h"
#include "graph/ops/kernel.h"

namespace onnxpress::onednn {

// Built at plan time; the copies share what is prepared. One call at a time, from any thread.
class PrimitiveKernel {
 public:
  // The scratchpad that a primitive made with scratchpad_given() asks for; `dims` of the first
  // output as the node gives it.
  PrimitiveKernel(dnnl::primitive primitive, const memory::desc& scratchpad, Dims dims);

  // Argument `arg` (DNNL_ARG_...) is input `index`, of layout `given` in memory; the primitive
  // wants `wanted`. A constant is brought into that layout here, once.
  void add_input(int arg, std::size_t index, const memory::desc& given, const memory::desc& wanted,
                 const Tensor* constant);
  // A constant that is not an input as it stands (weights scaled or expanded beforehand).
  void add_constant(int arg, const Tensor& tensor, const memory::desc& given,
                    const memory::desc& wanted);
  // The first output.
  void set_output(const memory::desc& given, const memory::desc& wanted);

  void operator()(KernelContext& context) const;

 private:
  struct Operand {
    int arg = 0;
    std::size_t index = 0;
    memory::desc given, wanted;
    std::optional<dnnl::reorder> reorder;  // between the two, when they differ
    memory::desc scratchpad;               // of the reorder
    std::size_t scratch = 0;               // offset of the reordered copy
  };
  struct Constant {
    int arg = 0;
    Tensor tensor;  // keeps the memory when it is used as it is
    memory packed;
  };

  void make_reorder(Operand& operand, const memory::desc& from, const memory::desc& to);

  dnnl::primitive primitive_;
  memory::desc scratchpad_;
  Dims dims_;
  std::vector<Operand> inputs_;
  std::vector<Constant> constants_;
  Operand output_;
  std::size_t copies_bytes_ = 0;      // of the reordered operands
  std::size_t scratchpad_bytes_ = 0;  // behind them; the primitive and the reorders take turns
};

// What kernel rows ask of a node before they take it: float32 with concrete dims, none of them 0.
bool is_float_operand(const Type* type);
// The dims of such an operand.
Dims dims_of(const Type* type);

}  // namespace onnxpress::onednn
