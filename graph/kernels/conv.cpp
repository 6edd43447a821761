// Conv and ConvTranspose on oneDNN.
#include "graph/ops/conv.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/kernels/conv_layouts.h"
#include "graph/ops/attributes.h"
#include "graph/ops/conv_transpose.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::fastest;
using onednn::is_float_operand;
using onednn::memory;
using onednn::spatial;
using onednn::spatial_of;
using onednn::stored;
using onednn::WeightLayout;

// The primitive is for images of the given dims, which are `parts` times in the batch.
template <class Descriptor>
Kernel make_kernel(const PrepareContext& context, const Descriptor& descriptor,
                   dnnl::primitive primitive, const Dims& input, const Dims& output,
                   const WeightLayout& weights, std::int64_t parts = 1) {
  Dims whole = output;
  whole[0] *= parts;
  onednn::PrimitiveKernel kernel(std::move(primitive), descriptor.scratchpad_desc(), DType::float32,
                                 stored(whole, context.output_layout()));
  const memory::desc source = onednn::image(input, context.input_layout(0));
  const memory::desc target = onednn::image(output, context.output_layout());
  kernel.set_parts(parts, source.get_size(), target.get_size());
  kernel.add_input(DNNL_ARG_SRC, 0, source, descriptor.src_desc(), nullptr);
  kernel.add_input(DNNL_ARG_WEIGHTS, 1, onednn::strided(weights.dims, weights.strides),
                   descriptor.weights_desc(), context.constant_input(1));
  if (context.input_type(2)) {
    const memory::desc bias = onednn::plain(dims_of(context.input_type(2)));
    kernel.add_input(DNNL_ARG_BIAS, 2, bias, bias, context.constant_input(2));
  }
  kernel.set_output(target, descriptor.dst_desc());
  for (const PostOp& op : context.post_ops())
    if (op.kind == PostOp::Kind::add) kernel.set_accumulated(op.operand);
  for (const std::size_t packed : {std::size_t{1}, std::size_t{2}}) context.packed(packed);
  return kernel;
}

memory::desc bias_of(const PrepareContext& context) {
  return context.input_type(2) ? onednn::plain(dims_of(context.input_type(2))) : memory::desc();
}

// Winograd's minimal filtering (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
// Networks") multiplies 2.25 to 4 times less, and pays where the products outweigh the transforms.
bool gains_from_winograd(const ConvAttrs& attrs, const Dims& x, const Dims& y) {
  const auto all = [](const Dims& values, std::int64_t wanted) {
    return std::ranges::all_of(values, [&](std::int64_t value) { return value == wanted; });
  };
  return x.size() == 4 && attrs.group == 1 && all(attrs.window.kernel, 3) &&
         all(attrs.window.strides, 1) && all(attrs.window.dilations, 1) && x[1] >= 32 &&
         y[1] >= 32 && y[2] * y[3] >= 16;
}

// Into how many equal parts of at most 8 images a batch goes.
std::int64_t winograd_parts(std::int64_t batch) {
  std::int64_t parts = (batch + 7) / 8;
  while (batch % parts != 0) ++parts;
  return parts;
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
    const auto describe_as = [&](dnnl::algorithm algorithm, const memory::desc& source,
                                 const memory::desc& destination) {
      return onednn::convolution(
          algorithm, source, onednn::any_layout(weights.dims), bias_of(context), destination,
          spatial(attrs.window, {pads.begin(), middle}, {middle, pads.end()}),
          onednn::attributes(context.post_ops()));
    };
    if (context.may_approximate() && gains_from_winograd(attrs, x, y)) {
      try {
        // A few images at a time: the transformed ones stay in the caches, and memory small.
        const std::int64_t parts = winograd_parts(x[0]);
        Dims part_x = x, part_y = y;
        part_x[0] = part_y[0] = x[0] / parts;
        const auto descriptor = describe_as(dnnl::algorithm::convolution_winograd,
                                            onednn::any_layout(part_x), onednn::any_layout(part_y));
        return make_kernel(context, descriptor, dnnl::convolution_forward(descriptor), part_x,
                           part_y, weights, parts);
      } catch (const dnnl::error& error) {
        if (error.status != dnnl_unimplemented) throw;
      }
    }
    const auto describe = [&](const memory::desc& source, const memory::desc& destination) {
      return describe_as(dnnl::algorithm::convolution_direct, source, destination);
    };
    const auto pair = [&](Layout source, Layout destination) {
      return std::pair(onednn::image(x, source), onednn::image(y, destination));
    };
    // A pointwise convolution is one matrix product on images as they lie in memory; others gain
    // more from channels that are innermost than the reorders around them cost.
    const bool is_pointwise = attrs.group == 1 && element_count(attrs.window.kernel) == 1;
    std::vector<std::pair<memory::desc, memory::desc>> tried;
    if (context.output_layout() == Layout::row_major && is_pointwise)
      tried.push_back(pair(Layout::row_major, Layout::row_major));
    if (context.input_layout(0) == Layout::row_major && x[1] <= 4)
      tried.push_back(pair(Layout::row_major, Layout::channels_last));
    tried.push_back(pair(Layout::channels_last, Layout::channels_last));
    tried.emplace_back(onednn::any_layout(x), onednn::any_layout(y));
    const auto descriptor = fastest(describe, tried);
    return make_kernel(context, descriptor, dnnl::convolution_forward(descriptor), x, y, weights);
  });
}

// oneDNN's depthwise convolution for SSE4.1 reads what it adds to beyond the last channels and
// crashes when they do not fill its blocks of 8.
bool fuses_conv(const PrepareContext& context, const PostOp& op) {
  const bool crashes =
      op.kind == PostOp::Kind::add && dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::sse41 &&
      get_int(context.node(), "group", 1) > 1 && dims_of(context.output_type(0))[1] % 8 != 0;
  return !crashes && onednn::fuses_post_op(context, op);
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
    const auto describe = [&](const memory::desc& source, const memory::desc& destination) {
      return onednn::deconvolution(
          source, onednn::any_layout(weights.dims), bias_of(context), destination,
          spatial(attrs.window, {resolved.pads.begin(), middle}, {middle, resolved.pads.end()}),
          onednn::attributes(context.post_ops()));
    };
    const std::pair<memory::desc, memory::desc> tried[] = {
        {onednn::image(x, Layout::channels_last), onednn::image(y, Layout::channels_last)},
        {onednn::any_layout(x), onednn::any_layout(y)}};
    const auto descriptor = fastest(describe, tried);
    return make_kernel(context, descriptor, dnnl::deconvolution_forward(descriptor), x, y, weights);
  });
}

}  // namespace

OPERATORS(onednn_conv) {
  registry.add(KernelDef{.name = "Conv",
                         .backend = "onednn",
                         .supports = supports,
                         .prepare = prepare_conv,
                         .fuses = fuses_conv,
                         .channels_last = true});
  registry.add(KernelDef{.name = "ConvTranspose",
                         .backend = "onednn",
                         .supports = supports_transposed,
                         .prepare = prepare_conv_transpose,
                         .fuses = fuses_conv,
                         .channels_last = true});
}

}  // namespace onnxpress
