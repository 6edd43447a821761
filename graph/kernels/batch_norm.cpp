// BatchNormalization with given statistics on oneDNN.
#include "graph/ops/batch_norm.h"

#include <iterator>

#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::memory;

constexpr int arguments[] = {DNNL_ARG_SRC, DNNL_ARG_SCALE, DNNL_ARG_SHIFT, DNNL_ARG_MEAN,
                             DNNL_ARG_VARIANCE};

bool supports(const PrepareContext& context) {
  const BatchNormAttrs attrs = BatchNormAttrs::from(context.node());
  if (attrs.training || !attrs.per_channel || !is_float_operand(context.output_type(0)))
    return false;
  for (std::size_t i = 0; i < std::size(arguments); ++i)
    if (!is_float_operand(context.input_type(i))) return false;
  for (std::size_t i = 1; i < context.node().output_count(); ++i)
    if (context.output_type(i)) return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  return rank >= 2 && rank <= 5;
}

Kernel prepare(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const Dims x = dims_of(context.input_type(0));
    const memory::desc image = onednn::plain(x), vector = onednn::plain({x[1]});
    using Flags = dnnl::normalization_flags;
    const auto descriptor =
        onednn::batch_normalization(image, BatchNormAttrs::from(context.node()).epsilon,
                                    Flags::use_global_stats | Flags::use_scale | Flags::use_shift);
    onednn::PrimitiveKernel kernel(dnnl::batch_normalization_forward(descriptor), x);
    kernel.add_input(DNNL_ARG_SRC, 0, image, descriptor.src_desc(), nullptr);
    for (std::size_t i = 1; i < std::size(arguments); ++i)
      kernel.add_input(arguments[i], i, vector, vector, context.constant_input(i));
    kernel.set_output(image, descriptor.dst_desc());
    return kernel;
  });
}

}  // namespace

OPERATORS(onednn_batch_norm) {
  registry.add(KernelDef{
      .name = "BatchNormalization", .backend = "onednn", .supports = supports, .prepare = prepare});
}

}  // namespace onnxpress
