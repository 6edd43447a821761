// QLinearConv: 8-bit activations, int8 weights, integer sums. On oneDNN, and by our own loop where
// every channel has a filter.
#include "graph/kernels/conv_layouts.h"
#include "graph/kernels/depthwise_codes.h"
#include "graph/kernels/quantized_primitive.h"
#include "graph/ops/attributes.h"
#include "graph/ops/conv.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_code_operand;
using onednn::memory;

// Inputs: x, its scale and zero point, w, ..., y's, bias.
constexpr std::size_t x_scale = 1, x_zero = 2, w_input = 3, w_scale = 4, w_zero = 5, y_scale = 6,
                      y_zero = 7, bias_input = 8;

bool supports(const PrepareContext& context) {
  if (!onednn::has_exact_sums()) return false;
  const Node& node = context.node();
  if (node.domain() == "com.microsoft" && get_bool(node, "channels_last", false)) return false;
  if (!is_code_operand(context.input_type(0)) || !is_code_operand(context.output_type(0)))
    return false;
  const Tensor* weights = context.constant_input(w_input);
  if (!weights || weights->dtype() != DType::int8 || weights->size() == 0) return false;
  for (const std::size_t index : {x_scale, w_scale, y_scale}) {
    const Tensor* scale = context.constant_input(index);
    if (!scale || scale->dtype() != DType::float32) return false;
    if (scale->size() != 1 && (index != w_scale || scale->size() != weights->dim(0))) return false;
  }
  // What does not fit is for the reference kernel to say.
  const std::int64_t filters = weights->dim(0);
  const auto fits = [&](std::size_t index, DType type, std::int64_t most) {
    const Tensor* tensor = context.constant_input(index);
    if (tensor == nullptr) return context.input_type(index) == nullptr;
    return tensor->dtype() == type && (tensor->size() == 1 || tensor->size() == most);
  };
  if (!fits(x_zero, context.input_type(0)->elem, 1) ||
      !fits(y_zero, context.output_type(0)->elem, 1) || !fits(w_zero, DType::int8, filters) ||
      !onednn::is_all_zero(context.constant_input(w_zero)))
    return false;
  const Tensor* bias = context.constant_input(bias_input);
  if (context.input_type(bias_input) &&
      (!bias || bias->dtype() != DType::int32 || bias->dims() != Dims{filters}))
    return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  return rank >= 3 && rank <= 5 && weights->rank() == rank;
}

Kernel prepare(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const Tensor& w = *context.constant_input(w_input);
    const Dims x = dims_of(context.input_type(0));
    const ConvAttrs attrs = ConvAttrs::of(context.node(), w.dims());
    const Dims y = attrs.output_dims(x, w.dims());
    const Dims pads = attrs.window.resolved_pads(onednn::spatial_of(x));
    const auto middle = pads.begin() + static_cast<std::ptrdiff_t>(pads.size() / 2);
    const onednn::WeightLayout weights(w.dims(), attrs.group, false);
    const DType y_type = context.output_type(0)->elem;
    const auto x_data = onednn::data_type(context.input_type(0)->elem);
    const auto y_data = onednn::data_type(y_type);
    auto requantization = onednn::Requantization::of(*context.constant_input(x_scale),
                                                     *context.constant_input(w_scale),
                                                     *context.constant_input(y_scale));
    requantization.source_zero_point = onednn::zero_point(context.constant_input(x_zero));
    requantization.zero_point = onednn::zero_point(context.constant_input(y_zero));
    const Tensor* bias = context.constant_input(bias_input);
    const Dims bias_dims{y[1]};
    const auto attributes = onednn::attributes(
        requantization, context.post_ops(), {.weights = attrs.group > 1 ? 3 : 1, .destination = 2});
    const auto suits = onednn::suited_implementations(element_count(y) * element_count(w.dims()) /
                                                      w.dim(0) / context.threads());
    const auto describe = [&](const memory::desc& source, const memory::desc& destination) {
      return onednn::convolution(
          dnnl::algorithm::convolution_direct, source,
          onednn::any_layout(weights.dims, onednn::DataType::s8),
          bias ? onednn::plain(bias_dims, onednn::quantized_bias_type()) : memory::desc(),
          destination, onednn::spatial(attrs.window, {pads.begin(), middle}, {middle, pads.end()}),
          attributes, suits);
    };
    const std::pair<memory::desc, memory::desc> tried[] = {
        {onednn::image(x, Layout::channels_last, x_data),
         onednn::image(y, Layout::channels_last, y_data)},
        {onednn::any_layout(x, x_data), onednn::any_layout(y, y_data)}};
    const auto descriptor = onednn::fastest(describe, tried);
    onednn::PrimitiveKernel kernel(dnnl::convolution_forward(descriptor),
                                   descriptor.scratchpad_desc(), y_type,
                                   onednn::stored(y, context.output_layout()));
    kernel.add_input(DNNL_ARG_SRC, 0, onednn::image(x, context.input_layout(0), x_data),
                     descriptor.src_desc(), nullptr);
    kernel.add_constant(DNNL_ARG_WEIGHTS, w,
                        onednn::strided(weights.dims, weights.strides, onednn::DataType::s8),
                        descriptor.weights_desc());
    if (bias) onednn::add_bias(kernel, requantization, *bias, bias_dims);
    onednn::add_arguments(kernel, requantization);
    kernel.set_output(onednn::image(y, context.output_layout(), y_data), descriptor.dst_desc());
    for (std::size_t index = 1; index <= bias_input; ++index) context.packed(index);
    return kernel;
  });
}

// Convolutions with a filter for every channel.

WindowGeometry geometry_of(const PrepareContext& context, const ConvAttrs& attrs) {
  return WindowGeometry::of(attrs.window, onednn::spatial_of(dims_of(context.input_type(0))),
                            onednn::spatial_of(dims_of(context.output_type(0))));
}

bool supports_depthwise(const PrepareContext& context) {
  if (context.input_layout(0) != Layout::channels_last ||
      context.output_layout() != Layout::channels_last || !supports(context))
    return false;
  const Dims w = context.constant_input(w_input)->dims(), x = dims_of(context.input_type(0));
  const ConvAttrs attrs = ConvAttrs::of(context.node(), w);
  return attrs.group == x[1] && w[0] == x[1] && x.size() <= 4 &&
         DepthwiseCodes::is_fast_for(x[1], geometry_of(context, attrs));
}

Kernel prepare_depthwise(const PrepareContext& context) {
  const Tensor& w = *context.constant_input(w_input);
  const Tensor* bias = context.constant_input(bias_input);
  const auto scales = onednn::Requantization::of(*context.constant_input(x_scale),
                                                 *context.constant_input(w_scale),
                                                 *context.constant_input(y_scale))
                          .scales;
  const auto flip = [](DType type) {
    return static_cast<std::uint8_t>(type == DType::int8 ? 0x80 : 0);
  };
  const auto zero = [&](std::size_t index, std::uint8_t flipped) {
    return static_cast<std::uint8_t>(onednn::zero_point(context.constant_input(index)) ^ flipped);
  };
  const DType y_type = context.output_type(0)->elem;
  const std::uint8_t x_flip = flip(context.input_type(0)->elem), y_flip = flip(y_type);
  const Dims x = dims_of(context.input_type(0));
  const DepthwiseCodes convolution(
      {.geometry = geometry_of(context, ConvAttrs::of(context.node(), w.dims())),
       .channels = x[1],
       .weights = w.data<std::int8_t>(),
       .scales = scales,
       .biases = bias ? bias->data<std::int32_t>() : std::span<const std::int32_t>(),
       .x_zero = zero(x_zero, x_flip),
       .y_zero = zero(y_zero, y_flip),
       .x_flip = x_flip,
       .y_flip = y_flip});
  for (std::size_t index = 1; index <= bias_input; ++index) context.packed(index);
  const Dims y = onednn::stored(dims_of(context.output_type(0)), Layout::channels_last);
  return [convolution, y_type, y, images = x[0]](KernelContext& call) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(call.required_input(0).aligned_bytes());
    auto* to = reinterpret_cast<std::uint8_t*>(call.output(0, y_type, y).mutable_bytes().data());
    convolution.run(call.pool(), from, to, images);
  };
}

}  // namespace

OPERATORS(onednn_qlinear_conv) {
  for (const char* domain : {"", "com.microsoft"}) {
    registry.add(KernelDef{.name = "QLinearConv",
                           .domain = domain,
                           .backend = "vector",
                           .supports = supports_depthwise,
                           .prepare = prepare_depthwise,
                           .channels_last = true});
    registry.add(KernelDef{.name = "QLinearConv",
                           .domain = domain,
                           .backend = "onednn",
                           .supports = supports,
                           .prepare = prepare,
                           .channels_last = true});
  }
}

}  // namespace onnxpress
