#include "graph/kernels/primitive_kernel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "graph/kernels/scratch_memory.h"
#include "graph/kernels/winograd_weights.h"

namespace onnxpress::onednn {
namespace {

memory without_data(const memory::desc& layout) { return memory(layout, cpu_engine(), nullptr); }

void point(memory& target, const void* data) { target.set_data_handle(const_cast<void*>(data)); }

// A primitive with the arguments that its next execution takes.
class Prepared {
 public:
  Prepared(dnnl::primitive primitive, const memory::desc& scratchpad)
      : primitive_(std::move(primitive)) {
    if (scratchpad.get_size() > 0) scratchpad_ = add(DNNL_ARG_SCRATCHPAD, without_data(scratchpad));
  }

  // Returns the argument's number.
  std::size_t add(int arg, const memory& data) {
    memories_.push_back(data);
    arguments_.push_back({arg, data.get()});
    return memories_.size() - 1;
  }
  void point_to(std::size_t argument, const void* data) { point(memories_[argument], data); }

  void execute(std::byte* scratchpad) {
    if (scratchpad_) point_to(*scratchpad_, scratchpad);
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(primitive_.get(), cpu_stream().get(),
                               static_cast<int>(arguments_.size()), arguments_.data()),
        "could not execute a primitive");
  }

 private:
  dnnl::primitive primitive_;
  std::vector<memory> memories_;
  std::vector<dnnl_exec_arg_t> arguments_;
  std::optional<std::size_t> scratchpad_;
};

// A reorder between a tensor and a copy in scratch memory.
struct Reorder {
  Prepared primitive;
  std::size_t from, to;  // arguments

  Reorder(const memory::desc& given, const memory::desc& wanted,
          const dnnl::reorder::primitive_desc& descriptor)
      : primitive(dnnl::reorder(descriptor), descriptor.scratchpad_desc()),
        from(primitive.add(DNNL_ARG_FROM, without_data(given))),
        to(primitive.add(DNNL_ARG_TO, without_data(wanted))) {}

  void run(const void* source, void* target, std::byte* scratchpad) {
    primitive.point_to(from, source);
    primitive.point_to(to, target);
    primitive.execute(scratchpad);
  }
};

struct Operand {
  std::size_t argument = 0;        // of the primitive
  std::size_t index = 0;           // of the node
  std::optional<Reorder> reorder;  // when the primitive wants another layout
  std::size_t copy = 0;            // offset of the reordered copy in scratch memory
};

// An argument that is a number of the call.
struct Number {
  std::size_t argument = 0;
  std::size_t index = 0;  // of the node's input
  std::int32_t value = 0;
};

}  // namespace

struct PrimitiveKernel::State {
  State(dnnl::primitive primitive, const memory::desc& scratchpad, DType element, Dims shape)
      : main(std::move(primitive), scratchpad),
        type(element),
        dims(std::move(shape)),
        scratchpad_bytes(scratchpad.get_size()) {}

  Reorder make_reorder(const memory::desc& from, const memory::desc& to) {
    const dnnl::reorder::primitive_desc descriptor(cpu_engine(), from, cpu_engine(), to,
                                                   scratchpad_given());
    scratchpad_bytes = std::max(scratchpad_bytes, descriptor.scratchpad_desc().get_size());
    return Reorder(from, to, descriptor);
  }

  std::size_t add_copy(const memory::desc& layout) {
    const std::size_t offset = copies_bytes;
    copies_bytes +=
        (layout.get_size() + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
    return offset;
  }

  void run(KernelContext& context) {
    std::byte* const scratch = scratch_memory(copies_bytes + scratchpad_bytes);
    Tensor& result = context.output(0, type, dims);
    for (Number& number : numbers) {
      const Tensor* given = context.input(number.index);
      number.value = given ? static_cast<std::int32_t>(given->to_ints().at(0)) : 0;
      main.point_to(number.argument, &number.value);
    }
    for (std::size_t part = 0; part < parts; ++part) run_part(context, result, part, scratch);
    cpu_stream().wait();
    if (finish) finish(context, result);
  }

  void run_part(KernelContext& context, Tensor& result, std::size_t part, std::byte* scratch) {
    std::byte* const scratchpad = scratch + copies_bytes;
    for (Operand& input : inputs) {
      const std::byte* data = context.required_input(input.index).aligned_bytes();
      if (input.index == 0) data += part * input_part;
      if (input.reorder) {
        input.reorder->run(data, scratch + input.copy, scratchpad);
        data = scratch + input.copy;
      }
      main.point_to(input.argument, data);
    }
    std::byte* const target = result.mutable_bytes().data() + part * output_part;
    std::byte* const computed = output.reorder ? scratch + output.copy : target;
    if (accumulated) {
      const std::byte* data =
          context.required_input(*accumulated).aligned_bytes() + part * output_part;
      if (before)
        before->run(data, computed, scratchpad);
      else if (data != computed)
        copy(context.pool(), data, computed, result.byte_size() / parts);
    }
    main.point_to(output.argument, computed);
    main.execute(scratchpad);
    if (output.reorder) output.reorder->run(computed, target, scratchpad);
  }

  static void copy(ThreadPool& pool, const std::byte* from, std::byte* to, std::size_t bytes) {
    pool.parallel_for(static_cast<std::int64_t>(bytes), std::int64_t{1} << 18,
                      [&](std::int64_t begin, std::int64_t end) {
                        std::memcpy(to + begin, from + begin,
                                    static_cast<std::size_t>(end - begin));
                      });
  }

  Prepared main;
  DType type;
  Dims dims;
  std::vector<Operand> inputs;
  std::vector<Number> numbers;
  std::function<void(KernelContext&, Tensor&)> finish;
  std::vector<Tensor> kept;  // constants used where they lie
  Operand output;
  memory::desc given_output, wanted_output;
  std::optional<std::size_t> accumulated;
  std::optional<Reorder> before;                           // of what is accumulated
  std::size_t parts = 1, input_part = 0, output_part = 0;  // bytes of one part
  std::size_t copies_bytes = 0;                            // of the reordered operands
  std::size_t scratchpad_bytes = 0;  // behind them; the primitive and the reorders take turns
};

PrimitiveKernel::PrimitiveKernel(dnnl::primitive primitive, const memory::desc& scratchpad,
                                 DType type, Dims dims)
    : state_(std::make_shared<State>(std::move(primitive), scratchpad, type, std::move(dims))) {}

void PrimitiveKernel::add_input(int arg, std::size_t index, const memory::desc& given,
                                const memory::desc& wanted, const Tensor* constant) {
  if (constant) return add_constant(arg, *constant, given, wanted);
  Operand operand{.argument = state_->main.add(arg, without_data(wanted)), .index = index};
  if (given != wanted) {
    operand.reorder = state_->make_reorder(given, wanted);
    operand.copy = state_->add_copy(wanted);
  }
  state_->inputs.push_back(std::move(operand));
}

namespace {

// The tensor over aligned bytes. Tensor::aligned_bytes() would keep its copy of a slice of a file for
// as long as any model holds the weights.
Tensor aligned(const Tensor& tensor) {
  if (reinterpret_cast<std::uintptr_t>(tensor.bytes().data()) % alignof(std::max_align_t) == 0)
    return tensor;
  Tensor copy = Tensor::uninitialized(tensor.dtype(), tensor.dims());
  std::ranges::copy(tensor.bytes(), copy.mutable_bytes().begin());
  return copy;
}

}  // namespace

void PrimitiveKernel::add_constant(int arg, const Tensor& given_tensor, const memory::desc& given,
                                   const memory::desc& wanted) {
  const Tensor tensor = aligned(given_tensor);
  memory source(given, cpu_engine(), const_cast<std::byte*>(tensor.bytes().data()));
  if (given == wanted) {
    state_->kept.push_back(tensor);
    state_->main.add(arg, source);
    return;
  }
  memory packed(wanted, cpu_engine());
  if (packs_winograd_weights(given, wanted)) {
    pack_winograd_weights(tensor.data<float>().data(), wanted,
                          static_cast<float*>(packed.get_data_handle()));
  } else {
    dnnl::reorder(source, packed).execute(cpu_stream(), source, packed);
    cpu_stream().wait();
  }
  state_->main.add(arg, packed);
}

void PrimitiveKernel::add_argument(int arg, const Tensor& tensor, const memory::desc& layout) {
  add_constant(arg, tensor, layout, layout);
}

void PrimitiveKernel::add_number(int arg, std::size_t index) {
  state_->numbers.push_back({.argument = state_->main.add(arg, without_data(plain({1}, DataType::s32))), .index = index});
}

void PrimitiveKernel::set_finish(std::function<void(KernelContext&, Tensor&)> finish) {
  state_->finish = std::move(finish);
}

void PrimitiveKernel::set_output(const memory::desc& given, const memory::desc& wanted, int arg) {
  state_->given_output = given;
  state_->wanted_output = wanted;
  state_->output.argument = state_->main.add(arg, without_data(wanted));
  if (given == wanted) return;
  state_->output.reorder = state_->make_reorder(wanted, given);
  state_->output.copy = state_->add_copy(wanted);
}

void PrimitiveKernel::set_accumulated(std::size_t index) {
  state_->accumulated = index;
  if (state_->output.reorder)
    state_->before = state_->make_reorder(state_->given_output, state_->wanted_output);
}

void PrimitiveKernel::set_parts(std::int64_t count, std::size_t input_bytes,
                                std::size_t output_bytes) {
  state_->parts = static_cast<std::size_t>(count);
  state_->input_part = input_bytes;
  state_->output_part = output_bytes;
}

void PrimitiveKernel::operator()(KernelContext& context) const {
  guarded([&] { state_->run(context); });
}

namespace {

bool has_elements(const Type& type) {
  const auto dims = type.is_tensor() && type.shape ? concrete(*type.shape) : std::nullopt;
  return dims && std::ranges::find(*dims, 0) == dims->end();
}

}  // namespace

bool is_float_operand(const Type* type) {
  return type && type->elem == DType::float32 && has_elements(*type);
}

bool is_code_operand(const Type* type) {
  return type && (type->elem == DType::uint8 || type->elem == DType::int8) && has_elements(*type);
}

Dims dims_of(const Type* type) { return concrete(*type->shape).value(); }

}  // namespace onnxpress::onednn
