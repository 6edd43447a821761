// Conv and ConvTranspose on oneDNN.
#include "graph/ops/conv.h"

#include <algorithm>
#include <utility>

#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/attributes.h"
#include "graph/ops/conv_transpose.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::memory;

Dims spatial_of(const Dims& dims) { return {dims.begin() + 2, dims.end()}; }

// Weights [out, in, kernel...] over memory [out, in, kernel...] or, for `transposed`, [in, out,
// kernel...]; with groups [group, out / group, in / group, kernel...].
struct WeightLayout {
  Dims dims, strides;

  WeightLayout(const Dims& weights, std::int64_t group, bool transposed) {
    const Dims kernel = spatial_of(weights);
    const std::int64_t cells = element_count(kernel);
    const std::int64_t first = weights[0] / group, second = weights[1];
    const std::int64_t inner = second * cells;
    dims = transposed ? Dims{second, first} : Dims{first, second};
    strides = transposed ? Dims{cells, inner} : Dims{inner, cells};
    if (group > 1) {
      dims.insert(dims.begin(), group);
      strides.insert(strides.begin(), first * inner);
    }
    std::int64_t stride = cells;
    for (std::int64_t size : kernel) {
      stride /= size;
      dims.push_back(size);
      strides.push_back(stride);
    }
  }
};

onednn::Spatial spatial(const Window& window, const Dims& pads_begin, const Dims& pads_end) {
  onednn::Spatial result{.strides = window.strides,
                         .dilations = window.dilations,
                         .pads_begin = pads_begin,
                         .pads_end = pads_end};
  for (std::int64_t& dilation : result.dilations) --dilation;
  return result;
}

template <class Descriptor>
Kernel make_kernel(const PrepareContext& context, const Descriptor& descriptor,
                   dnnl::primitive primitive, const Dims& output, const WeightLayout& weights) {
  onednn::PrimitiveKernel kernel(std::move(primitive), descriptor.scratchpad_desc(), output);
  kernel.add_input(DNNL_ARG_SRC, 0, onednn::plain(dims_of(context.input_type(0))),
                   descriptor.src_desc(), nullptr);
  kernel.add_input(DNNL_ARG_WEIGHTS, 1, onednn::strided(weights.dims, weights.strides),
                   descriptor.weights_desc(), context.constant_input(1));
  if (context.input_type(2)) {
    const memory::desc bias = onednn::plain(dims_of(context.input_type(2)));
    kernel.add_input(DNNL_ARG_BIAS, 2, bias, bias, context.constant_input(2));
  }
  kernel.set_output(onednn::plain(output), descriptor.dst_desc());
  return kernel;
}

memory::desc bias_of(const PrepareContext& context) {
  return context.input_type(2) ? onednn::plain(dims_of(context.input_type(2))) : memory::desc();
}

bool supports(const PrepareContext& context) {
  if (!is_float_operand(context.input_type(0)) || !is_float_operand(context.input_type(1)) ||
      !is_float_operand(context.output_type(0)))
    return false;
  if (context.input_type(2) && !is_float_operand(context.input_type(2))) return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  return rank >= 3 && rank <= 5 && dims_of(context.input_type(1)).size() == rank;
}

Kernel prepare_conv(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const Dims x = dims_of(context.input_type(0)), w = dims_of(context.input_type(1));
    const ConvAttrs attrs{.window = Window::from(context.node(), spatial_of(w)),
                          .group = get_int(context.node(), "group", 1)};
    const Dims y = attrs.output_dims(x, w);
    const Dims pads = attrs.window.resolved_pads(spatial_of(x));
    const auto middle = pads.begin() + static_cast<std::ptrdiff_t>(pads.size() / 2);
    const WeightLayout weights(w, attrs.group, false);
    // A pointwise convolution is one matrix product on images as they lie in memory; others gain
    // more from oneDNN's blocked layouts than the reorders around them cost.
    const bool is_pointwise = attrs.group == 1 && element_count(attrs.window.kernel) == 1;
    const auto image = is_pointwise ? onednn::plain : onednn::any_layout;
    const auto descriptor =
        onednn::convolution(image(x), onednn::any_layout(weights.dims), bias_of(context), image(y),
                            spatial(attrs.window, {pads.begin(), middle}, {middle, pads.end()}));
    return make_kernel(context, descriptor, dnnl::convolution_forward(descriptor), y, weights);
  });
}

bool supports_transposed(const PrepareContext& context) {
  if (!supports(context)) return false;
  const Dims x = dims_of(context.input_type(0)), w = dims_of(context.input_type(1));
  const auto attrs = ConvTransposeAttrs::from(context.node(), spatial_of(w));
  const auto resolved = attrs.resolve(spatial_of(x));
  // oneDNN takes no negative padding at the beginning, and at the end only within one stride.
  for (std::size_t axis = 0; axis < attrs.window.rank(); ++axis)
    if (resolved.pads[axis] < 0 ||
        resolved.pads[axis + attrs.window.rank()] + attrs.window.strides[axis] <= 0)
      return false;
  return true;
}

Kernel prepare_conv_transpose(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const Dims x = dims_of(context.input_type(0)), w = dims_of(context.input_type(1));
    const auto attrs = ConvTransposeAttrs::from(context.node(), spatial_of(w));
    const auto resolved = attrs.resolve(spatial_of(x));
    Dims y{x[0], w[1] * attrs.group};
    y.insert(y.end(), resolved.spatial.begin(), resolved.spatial.end());
    const auto middle =
        resolved.pads.begin() + static_cast<std::ptrdiff_t>(resolved.pads.size() / 2);
    const WeightLayout weights(w, attrs.group, true);
    const auto descriptor = onednn::deconvolution(
        onednn::any_layout(x), onednn::any_layout(weights.dims), bias_of(context),
        onednn::any_layout(y),
        spatial(attrs.window, {resolved.pads.begin(), middle}, {middle, resolved.pads.end()}));
    return make_kernel(context, descriptor, dnnl::deconvolution_forward(descriptor), y, weights);
  });
}

}  // namespace

OPERATORS(onednn_conv) {
  registry.add(KernelDef{
      .name = "Conv", .backend = "onednn", .supports = supports, .prepare = prepare_conv});
  registry.add(KernelDef{.name = "ConvTranspose",
                         .backend = "onednn",
                         .supports = supports_transposed,
                         .prepare = prepare_conv_transpose});
}

}  // namespace onnxpress
