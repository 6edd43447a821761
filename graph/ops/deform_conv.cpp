// DeformConv: a convolution whose taps are moved by offsets (Dai et al., Deformable Convolutional
// Networks, 2017) and weighted by a mask (Zhu et al., Deformable ConvNets v2, 2018).
#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/conv.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct DeformCall {
  ConvAttrs conv;
  std::int64_t offset_groups;
  std::size_t rank;  // spatial axes
  WindowGeometry g;
  Dims dims;
  std::int64_t images, channels, filters;  // channels and filters of all groups

  DeformCall(const Node& node, const Tensor& x, const Tensor& w, const Tensor& offset,
             const Tensor* bias, const Tensor* mask) {
    require(w.rank() >= 3 && w.rank() <= 5, "expected weights of 3 to 5 axes, found {}",
            to_string(w.dims()));
    conv = {.window = Window::from(node, Dims(w.dims().begin() + 2, w.dims().end())),
            .group = get_int(node, "group", 1)};
    offset_groups = get_int(node, "offset_group", 1);
    rank = conv.window.rank();
    dims = conv.output_dims(x.dims(), w.dims());
    images = dims[0];
    channels = x.dim(1);
    filters = dims[1];
    require(offset_groups >= 1 && channels % offset_groups == 0,
            "expected channels divisible by offset_group {}, found {}", offset_groups, channels);
    const Dims in_spatial(x.dims().begin() + 2, x.dims().end());
    const Dims out_spatial(dims.begin() + 2, dims.end());
    g = WindowGeometry::of(conv.window, in_spatial, out_spatial);
    const std::int64_t taps = element_count(Dims{offset_groups, g.kernel_size()});
    check_shape("offsets", offset, element_count(Dims{taps, static_cast<std::int64_t>(rank)}));
    if (mask != nullptr) check_shape("a mask", *mask, taps);
    require(bias == nullptr || bias->size() == filters, "expected {} biases, found {}", filters,
            bias == nullptr ? 0 : bias->size());
  }

 private:
  void check_shape(std::string_view what, const Tensor& found, std::int64_t count) const {
    Dims expected = dims;
    expected[1] = count;
    require(found.dims() == expected, "expected {} of {}, found {}", what, to_string(expected),
            to_string(found.dims()));
  }
};

// The cells around a point, as offsets into a plane, with their weights; those outside are left
// out, being 0.
struct Corners {
  std::int64_t cells[8];
  double weights[8];
  std::size_t count = 0;

  Corners(const WindowGeometry& g, const double (&at)[3], double scale) {
    std::int64_t low[3];
    double part[3];
    for (std::size_t i = 0; i < 3; ++i) {
      if (!(at[i] > -1 && at[i] < static_cast<double>(g.input[i]))) return;
      const double down = std::floor(at[i]);
      low[i] = static_cast<std::int64_t>(down);
      part[i] = at[i] - down;
    }
    for (std::int64_t corner = 0; corner < 8; ++corner) {
      double weight = scale;
      std::int64_t cell = 0;
      for (std::size_t i = 0; i < 3; ++i) {
        const std::int64_t up = (corner >> (2 - i)) & 1;
        const std::int64_t index = low[i] + up;
        weight *= up != 0 ? part[i] : 1 - part[i];
        if (index < 0 || index >= g.input[i]) weight = 0;
        cell = cell * g.input[i] + index;
      }
      if (weight == 0) continue;
      cells[count] = cell;
      weights[count++] = weight;
    }
  }
};

// Columns [begin, end) of the matrix [channels * kernel, output positions] of one image.
template <class T>
void sample_columns(const DeformCall& call, const T* image, const T* offsets, const T* mask,
                    std::int64_t begin, std::int64_t end, T* columns) {
  const WindowGeometry& g = call.g;
  const std::int64_t positions = g.output_size();
  const std::int64_t taps = g.kernel_size();
  const std::int64_t width = end - begin;
  const std::int64_t per_group = call.channels / call.offset_groups;
  for (std::int64_t og = 0; og < call.offset_groups; ++og)
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const std::int64_t k[3] = {tap / g.kernel[2] / g.kernel[1], tap / g.kernel[2] % g.kernel[1],
                                 tap % g.kernel[2]};
      std::vector<Corners> corners;
      corners.reserve(static_cast<std::size_t>(width));
      for (std::int64_t position = begin; position < end; ++position) {
        const std::int64_t o[3] = {position / g.output[2] / g.output[1],
                                   position / g.output[2] % g.output[1], position % g.output[2]};
        double at[3];
        for (std::size_t i = 0; i < 3; ++i) {
          at[i] = static_cast<double>(o[i] * g.stride[i] - g.pad[i] + k[i] * g.dilation[i]);
          if (i + call.rank < 3) continue;
          const auto axis = static_cast<std::int64_t>(i + call.rank - 3);
          const auto rank = static_cast<std::int64_t>(call.rank);
          at[i] += static_cast<double>(
              offsets[((og * taps + tap) * rank + axis) * positions + position]);
        }
        const double scale =
            mask != nullptr ? static_cast<double>(mask[(og * taps + tap) * positions + position])
                            : 1;
        corners.emplace_back(g, at, scale);
      }
      for (std::int64_t c = og * per_group; c < (og + 1) * per_group; ++c) {
        const T* plane = image + c * g.input_size();
        T* row = columns + (c * taps + tap) * width;
        for (const Corners& around : corners) {
          double sum = 0;
          for (std::size_t i = 0; i < around.count; ++i)
            sum += around.weights[i] * static_cast<double>(plane[around.cells[i]]);
          *row++ = static_cast<T>(sum);
        }
      }
    }
}

template <class T>
void deform_convolve(ThreadPool& pool, const DeformCall& call, const Tensor& x, const Tensor& w,
                     const Tensor& offset, const Tensor* bias, const Tensor* mask, Tensor& y) {
  const std::int64_t positions = call.g.output_size();
  const std::int64_t taps = call.g.kernel_size();
  const std::int64_t rows = call.channels * taps;
  const std::int64_t depth = rows / call.conv.group;
  const std::int64_t filters = call.filters / call.conv.group;
  const std::int64_t width =
      std::clamp<std::int64_t>(65536 / std::max<std::int64_t>(rows, 1), 16, 1024);
  const std::int64_t pieces = (positions + width - 1) / width;
  const T* const images = x.data<T>().data();
  const T* const weights = w.data<T>().data();
  const T* const moves = offset.data<T>().data();
  const T* const start = bias != nullptr ? bias->data<T>().data() : nullptr;
  const T* const scales = mask != nullptr ? mask->data<T>().data() : nullptr;
  T* const out = y.mutable_data<T>().data();
  pool.parallel_for(call.images * pieces, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t image = task / pieces;
    const std::int64_t begin = task % pieces * width;
    const std::int64_t end = std::min(positions, begin + width);
    std::vector<T> columns(static_cast<std::size_t>(rows * (end - begin)));
    sample_columns(call, images + image * call.channels * call.g.input_size(),
                   moves + image * offset.dim(1) * positions,
                   scales != nullptr ? scales + image * mask->dim(1) * positions : nullptr, begin,
                   end, columns.data());
    T* target = out + image * call.filters * positions + begin;
    for (std::int64_t m = 0; m < call.filters; ++m)
      std::fill_n(target + m * positions, end - begin, start != nullptr ? start[m] : T(0));
    for (std::int64_t group = 0; group < call.conv.group; ++group)
      add_product<T>(filters, end - begin, depth, {weights + group * filters * depth, depth},
                     {columns.data() + group * depth * (end - begin), end - begin},
                     {target + group * filters * positions, positions});
  });
}

Kernel prepare_deform_conv(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& w = inner.required_input(1);
      const Tensor& offset = inner.required_input(2);
      const Tensor* bias = inner.input(3);
      const Tensor* mask = inner.input(4);
      const DeformCall call(node, x, w, offset, bias, mask);
      Tensor& y = inner.output(0, x.dtype(), call.dims);
      if (y.size() == 0) return;
      dispatch_floats(x.dtype(), [&](auto tag) {
        deform_convolve<typename decltype(tag)::type>(inner.pool(), call, x, w, offset, bias, mask,
                                                      y);
      });
    });
  };
}

// The offsets tell the spatial sizes even where those of the input are not known.
void infer_deform_conv(InferContext& context) {
  const Shape* x = context.input_shape(0);
  const Shape* w = context.input_shape(1);
  const Shape* offset = context.input_shape(2);
  const Shape* ranked = x != nullptr ? x : w != nullptr ? w : offset;
  if (ranked == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  const std::size_t rank = ranked->size();
  for (const Shape* shape : {x, w, offset})
    require(shape == nullptr || (shape->size() == rank && rank >= 3),
            "expected operands of one rank of at least 3, found {} and {}", to_string(*ranked),
            shape == nullptr ? "?" : to_string(*shape));
  Shape result(rank);
  if (x != nullptr) result[0] = (*x)[0];
  if (w != nullptr) result[1] = (*w)[0];
  if (offset != nullptr) std::copy(offset->begin() + 2, offset->end(), result.begin() + 2);
  std::optional<Dims> kernel;
  if (w != nullptr) kernel = concrete(Shape(w->begin() + 2, w->end()));
  if (!kernel) kernel = find_ints(context.node(), "kernel_shape");
  if (kernel && x != nullptr) {
    const Window window = Window::from(context.node(), *kernel);
    require(window.rank() + 2 == rank, "expected an input of {} axes, found {}", window.rank() + 2,
            to_string(*x));
    for (std::size_t axis = 0; axis < window.rank(); ++axis)
      result[axis + 2] = unify(window.output_dim(axis, (*x)[axis + 2]), result[axis + 2],
                               "spatial sizes of output and offsets");
  }
  context.set_output(0, context.input_dtype(0), std::move(result));
}

OperandAxes deform_conv_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* w = node.input(1);
  if (w == nullptr || !w->type.shape) return axes;
  const std::size_t rank = w->type.shape->size();
  if (rank < 3) return axes;
  const AxisRole filters{.kind = AxisRole::Kind::output, .output_axis = 1};
  const bool whole = get_int(node, "group", 1) == 1 && get_int(node, "offset_group", 1) == 1;
  axes[0].assign(rank, {.kind = AxisRole::Kind::window});
  axes[1] = axes[0];
  axes[0][0] = {.kind = AxisRole::Kind::output, .output_axis = 0};
  axes[0][1] = whole ? AxisRole{.kind = AxisRole::Kind::reduced} : AxisRole{};
  axes[1][0] = filters;
  axes[1][1] = {.kind = AxisRole::Kind::reduced};
  for (std::size_t i = 2; i < axes.size(); ++i) {
    if (i == 3) {
      axes[i] = {filters};
      continue;
    }
    for (std::size_t axis = 0; axis < rank; ++axis)
      axes[i].push_back(axis == 1 ? AxisRole{}
                                  : AxisRole{.kind = AxisRole::Kind::output,
                                             .output_axis = static_cast<std::int64_t>(axis)});
  }
  return axes;
}

Cost deform_conv_cost(const PrepareContext& context) {
  const Dims w = concrete(*context.input_type(1)->shape).value();
  const Dims y = concrete(*context.output_type(0)->shape).value();
  return {.macs = element_count(y) * element_count(std::span(w).subspan(1))};
}

}  // namespace

OPERATORS(deform_conv) {
  registry.add(OpDef{.name = "DeformConv",
                     .since = 19,
                     .infer = infer_deform_conv,
                     .prepare = prepare_deform_conv,
                     .axes = deform_conv_axes,
                     .cost = deform_conv_cost});
}

}  // namespace onnxpress
