#include "graph/kernels/primitive_kernel.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "graph/kernels/scratch_memory.h"

namespace onnxpress::onednn {
namespace {

memory over(const memory::desc& layout, const void* data) {
  return memory(layout, cpu_engine(), const_cast<void*>(data));
}

}  // namespace

PrimitiveKernel::PrimitiveKernel(dnnl::primitive primitive, const memory::desc& scratchpad,
                                 Dims dims)
    : primitive_(std::move(primitive)),
      scratchpad_(scratchpad),
      dims_(std::move(dims)),
      scratchpad_bytes_(scratchpad.get_size()) {}

void PrimitiveKernel::add_input(int arg, std::size_t index, const memory::desc& given,
                                const memory::desc& wanted, const Tensor* constant) {
  if (constant) return add_constant(arg, *constant, given, wanted);
  Operand operand{.arg = arg, .index = index, .given = given, .wanted = wanted};
  if (given != wanted) make_reorder(operand, given, wanted);
  inputs_.push_back(std::move(operand));
}

void PrimitiveKernel::add_constant(int arg, const Tensor& tensor, const memory::desc& given,
                                   const memory::desc& wanted) {
  Constant constant{.arg = arg, .tensor = tensor};
  memory source = over(given, tensor.aligned_bytes());
  if (given == wanted) {
    constant.packed = source;
  } else {
    constant.packed = memory(wanted, cpu_engine());
    dnnl::reorder(source, constant.packed).execute(cpu_stream(), source, constant.packed);
    cpu_stream().wait();
    constant.tensor = Tensor();
  }
  constants_.push_back(std::move(constant));
}

void PrimitiveKernel::set_output(const memory::desc& given, const memory::desc& wanted) {
  output_ = {.arg = DNNL_ARG_DST, .given = given, .wanted = wanted};
  if (given != wanted) make_reorder(output_, wanted, given);
}

void PrimitiveKernel::make_reorder(Operand& operand, const memory::desc& from,
                                   const memory::desc& to) {
  const dnnl::reorder::primitive_desc descriptor(cpu_engine(), from, cpu_engine(), to,
                                                 scratchpad_given());
  operand.reorder = dnnl::reorder(descriptor);
  operand.scratchpad = descriptor.scratchpad_desc();
  operand.scratch = copies_bytes_;
  copies_bytes_ +=
      (operand.wanted.get_size() + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
  scratchpad_bytes_ = std::max(scratchpad_bytes_, operand.scratchpad.get_size());
}

void PrimitiveKernel::operator()(KernelContext& context) const {
  guarded([&] {
    dnnl::stream& stream = cpu_stream();
    std::byte* const scratch = scratch_memory(copies_bytes_ + scratchpad_bytes_);
    std::byte* const scratchpad = scratch + copies_bytes_;
    const auto reorder = [&](const Operand& operand, const memory& from, const memory& to) {
      operand.reorder->execute(
          stream, {{DNNL_ARG_FROM, from},
                   {DNNL_ARG_TO, to},
                   {DNNL_ARG_SCRATCHPAD, over(operand.scratchpad, scratchpad)}});
    };
    std::unordered_map<int, memory> arguments{{DNNL_ARG_SCRATCHPAD, over(scratchpad_, scratchpad)}};
    for (const Constant& constant : constants_) arguments.emplace(constant.arg, constant.packed);
    for (const Operand& input : inputs_) {
      memory given = over(input.given, context.required_input(input.index).aligned_bytes());
      if (input.reorder) {
        memory wanted = over(input.wanted, scratch + input.scratch);
        reorder(input, given, wanted);
        given = wanted;
      }
      arguments.emplace(input.arg, given);
    }
    Tensor& result = context.output(0, DType::float32, dims_);
    memory target = over(output_.given, result.mutable_bytes().data());
    memory computed = output_.reorder ? over(output_.wanted, scratch + output_.scratch) : target;
    arguments.emplace(output_.arg, computed);
    primitive_.execute(stream, arguments);
    if (output_.reorder) reorder(output_, computed, target);
    stream.wait();
  });
}

bool is_float_operand(const Type* type) {
  if (!type || !type->is_tensor() || type->elem != DType::float32 || !type->shape) return false;
  const auto dims = concrete(*type->shape);
  return dims && std::ranges::find(*dims, 0) == dims->end();
}

Dims dims_of(const Type* type) { return concrete(*type->shape).value(); }

}  // namespace onnxpress::onednn
