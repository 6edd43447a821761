// ConvInteger on oneDNN: the zero point of the input comes with the call.
#include "graph/kernels/conv_layouts.h"
#include "graph/kernels/quantized_primitive.h"
#include "graph/ops/conv.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::memory;

constexpr std::size_t w_input = 1, x_zero = 2, w_zero = 3;

bool supports(const PrepareContext& context) {
  if (!onednn::has_exact_sums() || !onednn::is_code_operand(context.input_type(0))) return false;
  const Tensor* weights = context.constant_input(w_input);
  if (!weights || weights->size() == 0 || bits(weights->dtype()) != 8 || !is_integer(weights->dtype())) return false;
  const Type* zero = context.input_type(x_zero);
  if (zero) {
    const auto dims = zero->shape ? concrete(*zero->shape) : std::nullopt;
    if (!dims || element_count(*dims) != 1) return false;
  }
  // As int8 the filters have no zero points left.
  const Tensor* zeros = context.constant_input(w_zero);
  if (context.input_type(w_zero) && !zeros) return false;
  const std::int64_t wanted = weights->dtype() == DType::uint8 ? 128 : 0;
  if (zeros == nullptr ? wanted != 0 : !std::ranges::all_of(zeros->to_ints(), [=](auto z) { return z == wanted; }))
    return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  return rank >= 3 && rank <= 5 && weights->rank() == rank;
}

Kernel prepare(const PrepareContext& context) {
  return onednn::guarded([&]() -> Kernel {
    const Tensor w = onednn::signed_codes(*context.constant_input(w_input));
    const Dims x = dims_of(context.input_type(0));
    const ConvAttrs attrs = ConvAttrs::of(context.node(), w.dims());
    const Dims y = attrs.output_dims(x, w.dims());
    const Dims pads = attrs.window.resolved_pads(onednn::spatial_of(x));
    const auto middle = pads.begin() + static_cast<std::ptrdiff_t>(pads.size() / 2);
    const onednn::WeightLayout weights(w.dims(), attrs.group, false);
    const auto x_data = onednn::data_type(context.input_type(0)->elem);
    const auto attributes = onednn::attributes_with_source_zero_point();
    const auto suits =
        onednn::suited_implementations(element_count(y) * element_count(w.dims()) / w.dim(0) / context.threads());
    const auto describe = [&](const memory::desc& source, const memory::desc& destination) {
      return onednn::convolution(dnnl::algorithm::convolution_direct, source,
                                 onednn::any_layout(weights.dims, onednn::DataType::s8), memory::desc(), destination,
                                 onednn::spatial(attrs.window, {pads.begin(), middle}, {middle, pads.end()}), attributes, suits);
    };
    const std::pair<memory::desc, memory::desc> tried[] = {
        {onednn::image(x, Layout::channels_last, x_data), onednn::image(y, Layout::channels_last, onednn::DataType::s32)},
        {onednn::any_layout(x, x_data), onednn::any_layout(y, onednn::DataType::s32)}};
    const auto descriptor = onednn::fastest(describe, tried);
    onednn::PrimitiveKernel kernel(dnnl::convolution_forward(descriptor), descriptor.scratchpad_desc(), DType::int32,
                                   onednn::stored(y, context.output_layout()));
    kernel.add_input(DNNL_ARG_SRC, 0, onednn::image(x, context.input_layout(0), x_data), descriptor.src_desc(), nullptr);
    kernel.add_constant(DNNL_ARG_WEIGHTS, w, onednn::strided(weights.dims, weights.strides, onednn::DataType::s8),
                        descriptor.weights_desc());
    kernel.add_number(onednn::source_zero_point_argument, x_zero);
    kernel.set_output(onednn::image(y, context.output_layout(), onednn::DataType::s32), descriptor.dst_desc());
    context.packed(w_input);
    context.packed(w_zero);
    return kernel;
  });
}

}  // namespace

OPERATORS(onednn_conv_integer) {
  registry.add(KernelDef{.name = "ConvInteger",
                         .backend = "onednn",
                         .supports = supports,
                         .prepare = prepare,
                         .channels_last = true});
}

}  // namespace onnxpress
