#include "graph/ops/conv_transpose.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/conv.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Adds the columns [channels * kernel, input positions] to the output planes they fall on. The
// geometry is that of the convolution from the output to the input.
template <class T>
void scatter_columns(const WindowGeometry& g, std::int64_t channels, const T* columns, T* planes) {
  for (std::int64_t c = 0; c < channels; ++c, planes += g.input_size())
    for (std::int64_t k0 = 0; k0 < g.kernel[0]; ++k0)
      for (std::int64_t k1 = 0; k1 < g.kernel[1]; ++k1)
        for (std::int64_t k2 = 0; k2 < g.kernel[2]; ++k2)
          for (std::int64_t o0 = 0; o0 < g.output[0]; ++o0) {
            const std::int64_t i0 = o0 * g.stride[0] - g.pad[0] + k0 * g.dilation[0];
            for (std::int64_t o1 = 0; o1 < g.output[1]; ++o1, columns += g.output[2]) {
              const std::int64_t i1 = o1 * g.stride[1] - g.pad[1] + k1 * g.dilation[1];
              if (i0 < 0 || i0 >= g.input[0] || i1 < 0 || i1 >= g.input[1]) continue;
              T* row = planes + (i0 * g.input[1] + i1) * g.input[2];
              std::int64_t i2 = k2 * g.dilation[2] - g.pad[2];
              for (std::int64_t o2 = 0; o2 < g.output[2]; ++o2, i2 += g.stride[2])
                if (i2 >= 0 && i2 < g.input[2]) row[i2] += columns[o2];
            }
          }
}

template <class T>
void convolve_transposed_as(ThreadPool& pool, const WindowGeometry& g, std::int64_t groups,
                         const Tensor& x, const Tensor& w, const Tensor* bias, Tensor& y) {
  const std::int64_t channels = w.dim(0) / groups;
  const std::int64_t filters = w.dim(1);
  const std::int64_t taps = g.kernel_size();
  const std::int64_t positions = g.output_size();  // of x
  const std::int64_t plane = g.input_size();       // of y
  const std::int64_t block =
      std::clamp<std::int64_t>(65536 / std::max<std::int64_t>(1, taps * positions), 1, 64);
  const std::int64_t pieces = (filters + block - 1) / block;
  const T* const input = x.data<T>().data();
  const T* const weights = w.data<T>().data();
  const T* const offsets = bias != nullptr ? bias->data<T>().data() : nullptr;
  T* const out = y.mutable_data<T>().data();
  pool.parallel_for(x.dim(0) * groups * pieces, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t first = task % pieces * block;
    const std::int64_t count = std::min(block, filters - first);
    const std::int64_t image = task / pieces;  // batch * groups + group
    const std::int64_t group = image % groups;
    T* target = out + (image * filters + first) * plane;
    for (std::int64_t m = 0; m < count; ++m)
      std::fill_n(target + m * plane, plane,
                  offsets != nullptr ? offsets[group * filters + first + m] : T(0));
    std::vector<T> columns(static_cast<std::size_t>(count * taps * positions), T(0));
    add_product<T>(count * taps, positions, channels,
                   {weights + (group * channels * filters + first) * taps, filters * taps, true},
                   {input + image * channels * positions, positions}, {columns.data(), positions});
    scatter_columns(g, count, columns.data(), target);
  });
}

void check(const ConvTransposeAttrs& attrs, const Dims& x, const Dims& w, const Tensor* bias) {
  require(x.size() == attrs.window.rank() + 2 && w.size() == x.size(),
          "expected an input and weights of {} axes, found {} and {}", attrs.window.rank() + 2,
          to_string(x), to_string(w));
  require(x[1] == w[0], "expected {} channels, found {}", w[0], x[1]);
  require(attrs.group >= 1 && w[0] % attrs.group == 0,
          "expected channels divisible by group {}, found {}", attrs.group, w[0]);
  require(bias == nullptr || bias->size() == w[1] * attrs.group, "expected {} biases, found {}",
          w[1] * attrs.group, bias == nullptr ? 0 : bias->size());
}

Kernel prepare_conv_transpose(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& w = inner.required_input(1);
      const Tensor* bias = inner.input(2);
      require(w.rank() >= 3, "expected weights of at least 3 axes, found {}", to_string(w.dims()));
      const auto attrs = ConvTransposeAttrs::from(node, Dims(w.dims().begin() + 2, w.dims().end()));
      check(attrs, x.dims(), w.dims(), bias);
      const Dims in_spatial(x.dims().begin() + 2, x.dims().end());
      const auto resolved = attrs.resolve(in_spatial);
      Dims dims{x.dim(0), w.dim(1) * attrs.group};
      dims.insert(dims.end(), resolved.spatial.begin(), resolved.spatial.end());
      Tensor& y = inner.output(0, x.dtype(), dims);
      convolve_transposed(inner.pool(), attrs.geometry(in_spatial), attrs.group, x, w, bias, y);
    });
  };
}

void infer_conv_transpose(InferContext& context) {
  const Node& node = context.node();
  const Shape* x = context.input_shape(0);
  const Shape* w = context.input_shape(1);
  std::optional<Dims> kernel;
  if (w != nullptr) {
    require(w->size() >= 3, "expected weights of at least 3 axes, found {}", to_string(*w));
    kernel = concrete(Shape(w->begin() + 2, w->end()));
  }
  if (!kernel) kernel = find_ints(node, "kernel_shape");
  if (!kernel || x == nullptr) {
    context.set_output(0, Type::tensor(context.input_dtype(0)));
    return;
  }
  const auto attrs = ConvTransposeAttrs::from(node, *kernel);
  require(x->size() == kernel->size() + 2, "expected an input of {} axes, found {}",
          kernel->size() + 2, to_string(*x));
  Shape shape{(*x)[0], Dim()};
  if (w != nullptr) {
    unify((*x)[1], (*w)[0], "the channels of input and weights");
    if ((*w)[1].is_known()) shape[1] = (*w)[1].value() * attrs.group;
    check_biases(context, 2, shape[1]);
  }
  for (std::size_t axis = 0; axis < kernel->size(); ++axis) {
    const Dim& dim = (*x)[axis + 2];
    if (dim.is_known())
      shape.push_back(attrs.resolve_axis(axis, dim.value()).size);
    else
      shape.push_back(attrs.output_shape.empty() ? Dim() : Dim(attrs.output_shape[axis]));
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes conv_transpose_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* w = node.input(1);
  if (w == nullptr || !w->type.shape) return axes;
  const std::size_t rank = w->type.shape->size();
  if (rank < 3) return axes;
  const std::int64_t group = get_int(node, "group", 1);
  const bool grouped = group != 1;
  const Shape& shape = *w->type.shape;
  const bool depthwise = grouped && same_dim(shape[0], Dim(group)) && same_dim(shape[1], Dim(1));
  const AxisRole reduced{.kind = AxisRole::Kind::reduced};
  const AxisRole filters{.kind = AxisRole::Kind::output, .output_axis = 1};
  axes[0].assign(rank, {.kind = AxisRole::Kind::window});
  axes[1] = axes[0];
  axes[0][0] = {.kind = AxisRole::Kind::output, .output_axis = 0};
  axes[0][1] = axes[1][0] = depthwise ? filters : grouped ? AxisRole{} : reduced;
  axes[1][1] = grouped ? AxisRole{} : filters;
  if (axes.size() > 2) axes[2] = {filters};
  return axes;
}

Cost conv_transpose_cost(const PrepareContext& context) {
  const Dims x = concrete(*context.input_type(0)->shape).value();
  const Dims w = concrete(*context.input_type(1)->shape).value();
  return {.macs = element_count(x) * element_count(std::span(w).subspan(1))};
}

}  // namespace

ConvTransposeAttrs ConvTransposeAttrs::from(const Node& node,
                                            std::vector<std::int64_t> kernel_sizes) {
  if (kernel_sizes.empty()) kernel_sizes = get_ints(node, "kernel_shape");
  const Value* w = node.input(1);
  if (kernel_sizes.empty() && w != nullptr && w->type.shape && w->type.shape->size() > 2)
    if (const auto dims = concrete(Shape(w->type.shape->begin() + 2, w->type.shape->end())))
      kernel_sizes = *dims;
  require(!kernel_sizes.empty(), "{}: kernel sizes are not known", node.describe());
  const std::size_t rank = kernel_sizes.size();
  ConvTransposeAttrs attrs{.window = Window::from(node, std::move(kernel_sizes)),
                           .group = get_int(node, "group", 1)};
  attrs.output_padding = get_ints(node, "output_padding", std::vector<std::int64_t>(rank, 0));
  attrs.output_shape = get_ints(node, "output_shape");
  // Some exporters write the batch and channel axes too.
  if (attrs.output_shape.size() == rank + 2)
    attrs.output_shape.erase(attrs.output_shape.begin(), attrs.output_shape.begin() + 2);
  require(attrs.output_padding.size() == rank,
          "attribute 'output_padding': expected {} values, found {}", rank,
          attrs.output_padding.size());
  require(attrs.output_shape.empty() || attrs.output_shape.size() == rank,
          "attribute 'output_shape': expected {} values, found {}", rank,
          attrs.output_shape.size());
  for (const auto* values : {&attrs.output_padding, &attrs.output_shape})
    require(std::ranges::all_of(*values, [](std::int64_t value) { return value >= 0; }),
            "expected output paddings and sizes that are not negative, found {}",
            to_string(*values));
  return attrs;
}

ConvTransposeAttrs::Axis ConvTransposeAttrs::resolve_axis(std::size_t axis,
                                                          std::int64_t size) const {
  const bool same =
      window.auto_pad == AutoPad::same_upper || window.auto_pad == AutoPad::same_lower;
  std::int64_t stretched = 0;
  std::int64_t full = 0;
  const bool fits =
      !__builtin_mul_overflow(window.strides[axis], size, &stretched) &&
      !__builtin_add_overflow(stretched - window.strides[axis], output_padding[axis], &full) &&
      !__builtin_add_overflow(full, window.extent(axis), &full);
  require(fits, "the output's size along spatial axis {} overflows", axis);
  Axis resolved{window.pads[axis], window.pads[window.rank() + axis], 0};
  if (output_shape.empty() && !same) {
    resolved.size = full - resolved.begin - resolved.end;
  } else {
    resolved.size = output_shape.empty() ? stretched : output_shape[axis];
    const std::int64_t total = std::max<std::int64_t>(0, full - resolved.size);
    resolved.begin = window.auto_pad == AutoPad::same_upper ? total / 2 : total - total / 2;
    resolved.end = total - resolved.begin;
  }
  require(resolved.size >= 0, "padding leaves a negative size along spatial axis {}", axis);
  return resolved;
}

ConvTransposeAttrs::Resolved ConvTransposeAttrs::resolve(const Dims& input_spatial) const {
  Resolved resolved{.pads = window.pads, .spatial = Dims(window.rank())};
  for (std::size_t axis = 0; axis < window.rank(); ++axis) {
    const Axis one = resolve_axis(axis, input_spatial[axis]);
    resolved.pads[axis] = one.begin;
    resolved.pads[window.rank() + axis] = one.end;
    resolved.spatial[axis] = one.size;
  }
  return resolved;
}

WindowGeometry ConvTransposeAttrs::geometry(const Dims& input_spatial) const {
  const Resolved resolved = resolve(input_spatial);
  Window backward = window;
  backward.auto_pad = AutoPad::notset;
  backward.pads = resolved.pads;
  return WindowGeometry::of(backward, resolved.spatial, input_spatial);
}

void convolve_transposed(ThreadPool& pool, const WindowGeometry& geometry, std::int64_t groups,
                         const Tensor& x, const Tensor& w, const Tensor* bias, Tensor& y) {
  dispatch_floats(x.dtype(), [&](auto tag) {
    convolve_transposed_as<typename decltype(tag)::type>(pool, geometry, groups, x, w, bias, y);
  });
}

OPERATORS(conv_transpose) {
  registry.add(OpDef{.name = "ConvTranspose",
                     .infer = infer_conv_transpose,
                     .prepare = prepare_conv_transpose,
                     .axes = conv_transpose_axes,
                     .cost = conv_transpose_cost});
}

}  // namespace onnxpress
