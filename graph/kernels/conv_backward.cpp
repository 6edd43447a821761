// Gradients of Conv and ConvTranspose on oneDNN.
#include <algorithm>
#include <optional>
#include <utility>

#include "graph/kernels/conv_layouts.h"
#include "graph/kernels/onednn_backward.h"
#include "graph/ops/attributes.h"
#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::memory;
using onednn::PrimitiveKernel;
using onednn::Spatial;
using onednn::spatial_of;
using onednn::WeightLayout;

// A convolution by the dims of its image, weights [M, C / group, kernel] and result.
struct ConvShape {
  Dims image, weights, result;
  std::int64_t group = 1;
  Spatial spatial;

  // What oneDNN takes: padding that is not negative, and the result's size following from it.
  bool is_supported() const {
    const std::size_t rank = image.size() - 2;
    if (rank < 1 || rank > 3) return false;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      const std::int64_t begin = spatial.pads_begin[axis], end = spatial.pads_end[axis];
      const std::int64_t extent = (weights[axis + 2] - 1) * (spatial.dilations[axis] + 1) + 1;
      const std::int64_t room = image[axis + 2] + begin + end - extent;
      if (begin < 0 || end < 0 || room < 0) return false;
      if (room / spatial.strides[axis] + 1 != result[axis + 2]) return false;
    }
    return true;
  }
};

bool are_float_operands(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_float_operand(context.input_type(1)) &&
         is_float_operand(context.output_type(0));
}

ConvShape conv_shape_of(const PrepareContext& context) {
  ConvShape shape{.image = dims_of(context.input_type(0)),
                  .weights = dims_of(context.input_type(1)),
                  .result = dims_of(context.output_type(0))};
  const ConvAttrs attrs = ConvAttrs::of(context.node(), shape.weights);
  shape.group = attrs.group;
  const Dims pads = attrs.window.resolved_pads(spatial_of(shape.image));
  const auto middle = pads.begin() + static_cast<std::ptrdiff_t>(pads.size() / 2);
  shape.spatial = onednn::spatial(attrs.window, {pads.begin(), middle}, {middle, pads.end()});
  return shape;
}

// The convolution that ConvTranspose is the transpose of: from its result back to its input.
ConvShape transposed_shape_of(const PrepareContext& context) {
  ConvShape shape{.image = dims_of(context.output_type(0)),
                  .weights = dims_of(context.input_type(1)),
                  .result = dims_of(context.input_type(0))};
  const auto attrs = ConvTransposeAttrs::from(context.node(), spatial_of(shape.weights));
  shape.group = attrs.group;
  const auto resolved = attrs.resolve(spatial_of(shape.result));
  const auto middle = resolved.pads.begin() + static_cast<std::ptrdiff_t>(resolved.pads.size() / 2);
  shape.spatial =
      onednn::spatial(attrs.window, {resolved.pads.begin(), middle}, {middle, resolved.pads.end()});
  return shape;
}

memory::desc weights_in_memory(const ConvShape& shape) {
  const WeightLayout layout(shape.weights, shape.group, false);
  return onednn::strided(layout.dims, layout.strides);
}

memory::desc any_weights(const ConvShape& shape) {
  return onednn::any_layout(WeightLayout(shape.weights, shape.group, false).dims);
}

// From (the result's gradient, weights) to the image's.
PrimitiveKernel data_gradient(const ConvShape& shape) {
  const auto descriptor = onednn::convolution_data_gradient(
      onednn::any_layout(shape.image), any_weights(shape), onednn::any_layout(shape.result),
      shape.spatial);
  PrimitiveKernel kernel(dnnl::convolution_backward_data(descriptor), descriptor.scratchpad_desc(),
                         DType::float32, shape.image);
  kernel.add_input(DNNL_ARG_DIFF_DST, 0, onednn::plain(shape.result), descriptor.diff_dst_desc(),
                   nullptr);
  kernel.add_input(DNNL_ARG_WEIGHTS, 1, weights_in_memory(shape), descriptor.weights_desc(),
                   nullptr);
  kernel.set_output(onednn::plain(shape.image), descriptor.diff_src_desc(), DNNL_ARG_DIFF_SRC);
  return kernel;
}

// From (image, the result's gradient) to the weights'.
PrimitiveKernel weights_gradient(const ConvShape& shape) {
  const auto descriptor = onednn::convolution_weights_gradient(
      onednn::any_layout(shape.image), any_weights(shape), onednn::any_layout(shape.result),
      shape.spatial);
  PrimitiveKernel kernel(dnnl::convolution_backward_weights(descriptor),
                         descriptor.scratchpad_desc(), DType::float32, shape.weights);
  kernel.add_input(DNNL_ARG_SRC, 0, onednn::plain(shape.image), descriptor.src_desc(), nullptr);
  kernel.add_input(DNNL_ARG_DIFF_DST, 1, onednn::plain(shape.result), descriptor.diff_dst_desc(),
                   nullptr);
  kernel.set_output(weights_in_memory(shape), descriptor.diff_weights_desc(),
                    DNNL_ARG_DIFF_WEIGHTS);
  return kernel;
}

// From (image, weights) to the result.
PrimitiveKernel forward(const ConvShape& shape) {
  const auto descriptor =
      onednn::convolution(dnnl::algorithm::convolution_direct, onednn::any_layout(shape.image),
                          any_weights(shape), memory::desc(), onednn::any_layout(shape.result),
                          shape.spatial, onednn::scratchpad_given());
  PrimitiveKernel kernel(dnnl::convolution_forward(descriptor), descriptor.scratchpad_desc(),
                         DType::float32, shape.result);
  kernel.add_input(DNNL_ARG_SRC, 0, onednn::plain(shape.image), descriptor.src_desc(), nullptr);
  kernel.add_input(DNNL_ARG_WEIGHTS, 1, weights_in_memory(shape), descriptor.weights_desc(),
                   nullptr);
  kernel.set_output(onednn::plain(shape.result), descriptor.dst_desc());
  return kernel;
}

void put_bias(BackwardContext& context, const Tensor& dy) {
  sum_around<float>(context.pool(), dy.data<float>().data(), dy.dim(0), dy.dim(1),
                    element_count(std::span(dy.dims()).subspan(2)),
                    context.gradient(2).mutable_data<float>().data());
}

bool supports_conv(const PrepareContext& context) {
  if (!are_float_operands(context)) return false;
  return conv_shape_of(context).is_supported();
}

bool supports_transposed(const PrepareContext& context) {
  if (!are_float_operands(context)) return false;
  return transposed_shape_of(context).is_supported();
}

BackwardKernel prepare_conv(const PrepareContext& context) {
  return onednn::guarded([&]() -> BackwardKernel {
    const ConvShape shape = conv_shape_of(context);
    return [data = data_gradient(shape), weights = weights_gradient(shape)](BackwardContext& call) {
      const Tensor& dy = call.required_gradient(0);
      if (call.wants_gradient(0)) {
        onednn::GradientCall one(call, {&dy, call.input(1)}, 0);
        data(one);
      }
      if (call.wants_gradient(1)) {
        onednn::GradientCall one(call, {call.input(0), &dy}, 1);
        weights(one);
      }
      if (call.wants_gradient(2)) put_bias(call, dy);
    };
  });
}

BackwardKernel prepare_transposed(const PrepareContext& context) {
  return onednn::guarded([&]() -> BackwardKernel {
    const ConvShape shape = transposed_shape_of(context);
    return [data = forward(shape), weights = weights_gradient(shape)](BackwardContext& call) {
      const Tensor& dy = call.required_gradient(0);
      if (call.wants_gradient(0)) {
        onednn::GradientCall one(call, {&dy, call.input(1)}, 0);
        data(one);
      }
      if (call.wants_gradient(1)) {
        onednn::GradientCall one(call, {&dy, call.input(0)}, 1);
        weights(one);
      }
      if (call.wants_gradient(2)) put_bias(call, dy);
    };
  });
}

}  // namespace

OPERATORS(onednn_conv_backward) {
  registry.add(GradientDef{.name = "Conv",
                           .backend = "onednn",
                           .supports = supports_conv,
                           .prepare = prepare_conv,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
  registry.add(GradientDef{.name = "ConvTranspose",
                           .backend = "onednn",
                           .supports = supports_transposed,
                           .prepare = prepare_transposed,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
}

}  // namespace onnxpress
