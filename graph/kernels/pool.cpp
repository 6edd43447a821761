// MaxPool, AveragePool and their global forms on oneDNN.
#include "graph/ops/pool.h"

#include <algorithm>
#include <utility>

#include "graph/kernels/conv_layouts.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::stored;

bool is_image(const PrepareContext& context, bool (*is_operand)(const Type*)) {
  if (!is_operand(context.input_type(0)) || !is_operand(context.output_type(0))) return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  return rank >= 3 && rank <= 5;
}

bool is_float_image(const PrepareContext& context) { return is_image(context, is_float_operand); }
bool is_code_image(const PrepareContext& context) {
  return is_image(context, onednn::is_code_operand);
}

// Where windows lie, the padding at the end stretched or cut to the cells that windows reach.
struct PoolSpatial {
  Dims begin, end;         // padding
  bool is_plain = true;    // the end's padding is as the node has it
  bool is_covered = true;  // every window has a cell of the input

  PoolSpatial(const Window& window, const Dims& x, const Dims& y) {
    const Dims input(x.begin() + 2, x.end());
    const Dims pads = window.resolved_pads(input);
    for (std::size_t axis = 0; axis < window.rank(); ++axis) {
      const std::int64_t start = (y[axis + 2] - 1) * window.strides[axis] - pads[axis];
      const std::int64_t needed = start + window.extent(axis) - input[axis];
      const std::int64_t given = pads[axis + window.rank()];
      begin.push_back(pads[axis]);
      end.push_back(std::max<std::int64_t>(needed, 0));
      is_plain = is_plain && needed <= given;
      is_covered = is_covered && start < input[axis] && pads[axis] < window.extent(axis) &&
                   window.dilations[axis] == 1;
    }
  }
};

bool supports_pool(const PrepareContext& context) {
  const bool is_code_maximum = context.node().is("MaxPool") && is_code_image(context);
  if (!(is_float_image(context) || is_code_maximum) || context.output_type(1)) return false;
  const PoolAttrs attrs = PoolAttrs::from(context.node());
  const PoolSpatial spatial(attrs.window, dims_of(context.input_type(0)),
                            dims_of(context.output_type(0)));
  return spatial.is_covered && (spatial.is_plain || !attrs.count_include_pad);
}

Kernel make_kernel(const PrepareContext& context, dnnl::algorithm algorithm, const Dims& kernel,
                   const onednn::Spatial& spatial) {
  return onednn::guarded([&]() -> Kernel {
    const Dims x = dims_of(context.input_type(0)), y = dims_of(context.output_type(0));
    const DType type = context.input_type(0)->elem;
    const auto element = onednn::data_type(type);
    const onednn::memory::desc given = onednn::image(x, context.input_layout(0), element);
    const onednn::memory::desc target = onednn::image(y, context.output_layout(), element);
    const onednn::memory::desc source = onednn::image(x, context.output_layout(), element);
    const auto descriptor = onednn::pooling(algorithm, source, target, kernel, spatial);
    onednn::PrimitiveKernel result(onednn::pooling_forward(descriptor),
                                   descriptor.scratchpad_desc(), type,
                                   stored(y, context.output_layout()));
    result.add_input(DNNL_ARG_SRC, 0, given, descriptor.src_desc(), nullptr);
    result.set_output(target, descriptor.dst_desc());
    return result;
  });
}

Kernel prepare_pool(const PrepareContext& context, dnnl::algorithm algorithm) {
  const Window window = PoolAttrs::from(context.node()).window;
  const Dims x = dims_of(context.input_type(0)), y = dims_of(context.output_type(0));
  PoolSpatial spatial(window, x, y);
  return make_kernel(context, algorithm, window.kernel,
                     {.strides = window.strides,
                      .dilations = Dims(window.rank(), 0),
                      .pads_begin = std::move(spatial.begin),
                      .pads_end = std::move(spatial.end)});
}

Kernel prepare_max(const PrepareContext& context) {
  return prepare_pool(context, dnnl::algorithm::pooling_max);
}

Kernel prepare_average(const PrepareContext& context) {
  const bool include = PoolAttrs::from(context.node()).count_include_pad;
  return prepare_pool(context, include ? dnnl::algorithm::pooling_avg_include_padding
                                       : dnnl::algorithm::pooling_avg_exclude_padding);
}

Kernel prepare_global(const PrepareContext& context, dnnl::algorithm algorithm) {
  const Dims x = dims_of(context.input_type(0));
  const Dims kernel(x.begin() + 2, x.end());
  const Dims zeros(kernel.size(), 0);
  return make_kernel(context, algorithm, kernel,
                     {.strides = Dims(kernel.size(), 1),
                      .dilations = zeros,
                      .pads_begin = zeros,
                      .pads_end = zeros});
}

Kernel prepare_global_average(const PrepareContext& context) {
  return prepare_global(context, dnnl::algorithm::pooling_avg_exclude_padding);
}

Kernel prepare_global_max(const PrepareContext& context) {
  return prepare_global(context, dnnl::algorithm::pooling_max);
}

}  // namespace

OPERATORS(onednn_pool) {
  registry.add(KernelDef{.name = "MaxPool",
                         .backend = "onednn",
                         .supports = supports_pool,
                         .prepare = prepare_max,
                         .channels_last = true});
  registry.add(KernelDef{.name = "AveragePool",
                         .backend = "onednn",
                         .supports = supports_pool,
                         .prepare = prepare_average,
                         .channels_last = true});
  registry.add(KernelDef{.name = "GlobalAveragePool",
                         .backend = "onednn",
                         .supports = is_float_image,
                         .prepare = prepare_global_average,
                         .channels_last = true});
  registry.add(KernelDef{.name = "GlobalMaxPool",
                         .backend = "onednn",
                         .supports = is_float_image,
                         .prepare = prepare_global_max,
                         .channels_last = true});
}

}  // namespace onnxpress
