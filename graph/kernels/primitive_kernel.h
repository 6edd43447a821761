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
  // The scratchpad that a primitive made with scratchpad_given() or attributes() asks for; element
  // type and dims, in the order of memory, of the first output as the node gives it.
  PrimitiveKernel(dnnl::primitive primitive, const memory::desc& scratchpad, DType type, Dims dims);

  // Argument `arg` (DNNL_ARG_...) is input `index`, of layout `given` in memory; the primitive
  // wants `wanted`. A constant is brought into that layout here, once.
  void add_input(int arg, std::size_t index, const memory::desc& given, const memory::desc& wanted,
                 const Tensor* constant);
  // A constant that is not an input as it stands (weights scaled or expanded beforehand).
  void add_constant(int arg, const Tensor& tensor, const memory::desc& given,
                    const memory::desc& wanted);
  // A constant of any element type that is used as it lies.
  void add_argument(int arg, const Tensor& tensor, const memory::desc& layout);
  // The first output, as argument `arg`.
  void set_output(const memory::desc& given, const memory::desc& wanted, int arg = DNNL_ARG_DST);
  // Input `index`, one 8-bit number (0 when omitted), as an int32 argument of one element.
  void add_number(int arg, std::size_t index);
  // The primitive adds to its destination, which is to hold input `index` before: of the output's
  // layout. Nothing is copied when both are at the same place.
  void set_accumulated(std::size_t index);

  // The primitive is made for one of `count` equal parts, one behind the other, of input 0, the
  // output and what is accumulated, none of which is reordered outside of it: it runs once for
  // each.
  void set_parts(std::int64_t count, std::size_t input_bytes, std::size_t output_bytes);

  // What is done to the output behind the primitive.
  void set_finish(std::function<void(KernelContext& context, Tensor& output)> finish);

  void operator()(KernelContext& context) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// What kernel rows ask of a node before they take it: float32 with concrete dims, none of them 0.
bool is_float_operand(const Type* type);
// The same for uint8 and int8.
bool is_code_operand(const Type* type);
// The dims of such an operand.
Dims dims_of(const Type* type);

}  // namespace onnxpress::onednn
