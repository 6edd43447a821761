// Gradients of Conv and ConvTranspose: each the other's for the input.
#include <span>

#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

Dims spatial_of(const Dims& dims) { return Dims(dims.begin() + 2, dims.end()); }

// Sums over images and cells: [N, C, spatial...] to [C].
void put_bias(BackwardContext& context, const Tensor& dy) {
  const std::int64_t cells = element_count(std::span(dy.dims()).subspan(2));
  Tensor& db = context.gradient(2);
  dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
    sum_around<T>(context.pool(), dy.data<T>().data(), dy.dim(0), dy.dim(1), cells,
                  db.mutable_data<T>().data());
  });
}

BackwardKernel prepare_conv(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const ConvAttrs attrs = ConvAttrs::of(node, context.input_dims(1));
    const WindowGeometry geometry = WindowGeometry::of(
        attrs.window, spatial_of(context.input_dims(0)), spatial_of(dy.dims()));
    if (context.wants_gradient(0))
      convolve_transposed(context.pool(), geometry, attrs.group, dy, context.required_input(1),
                          nullptr, context.gradient(0));
    if (context.wants_gradient(1))
      correlate(context.pool(), geometry, attrs.group, context.required_input(0), dy,
                context.gradient(1));
    if (context.wants_gradient(2)) put_bias(context, dy);
  };
}

BackwardKernel prepare_conv_transpose(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const auto attrs = ConvTransposeAttrs::from(node, spatial_of(context.input_dims(1)));
    const WindowGeometry geometry = attrs.geometry(spatial_of(context.input_dims(0)));
    if (context.wants_gradient(0))
      convolve(context.pool(), geometry, attrs.group, dy, context.required_input(1), nullptr,
               context.gradient(0));
    if (context.wants_gradient(1))
      correlate(context.pool(), geometry, attrs.group, dy, context.required_input(0),
                context.gradient(1));
    if (context.wants_gradient(2)) put_bias(context, dy);
  };
}

}  // namespace

OPERATORS(conv_gradient) {
  registry.add(GradientDef{.name = "Conv",
                           .prepare = prepare_conv,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
  registry.add(GradientDef{.name = "ConvTranspose",
                           .prepare = prepare_conv_transpose,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
}

}  // namespace onnxpress
