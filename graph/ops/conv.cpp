#include "graph/ops/conv.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Columns [begin, end) of the im2col matrix [channels * kernel, output positions] of one image.
template <class T>
void gather_columns(const WindowGeometry& g, std::int64_t channels, const T* image,
                    std::int64_t begin, std::int64_t end, T* columns) {
  const std::int64_t width = end - begin;
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t k0 = 0; k0 < g.kernel[0]; ++k0)
      for (std::int64_t k1 = 0; k1 < g.kernel[1]; ++k1)
        for (std::int64_t k2 = 0; k2 < g.kernel[2]; ++k2, columns += width) {
          const T* plane = image + c * g.input_size();
          std::int64_t position = begin;
          while (position < end) {  // one run along the last axis at a time
            const std::int64_t o2 = position % g.output[2];
            const std::int64_t o1 = position / g.output[2] % g.output[1];
            const std::int64_t o0 = position / g.output[2] / g.output[1];
            const std::int64_t run = std::min(end - position, g.output[2] - o2);
            const std::int64_t i0 = o0 * g.stride[0] - g.pad[0] + k0 * g.dilation[0];
            const std::int64_t i1 = o1 * g.stride[1] - g.pad[1] + k1 * g.dilation[1];
            T* out = columns + (position - begin);
            position += run;
            if (i0 < 0 || i0 >= g.input[0] || i1 < 0 || i1 >= g.input[1]) {
              std::fill(out, out + run, T(0));
              continue;
            }
            const T* row = plane + (i0 * g.input[1] + i1) * g.input[2];
            const std::int64_t i2 = o2 * g.stride[2] - g.pad[2] + k2 * g.dilation[2];
            const std::int64_t step = g.stride[2];
            // Positions [low, high) of the run read inside the row.
            const std::int64_t high =
                i2 >= g.input[2]
                    ? 0
                    : std::clamp<std::int64_t>((g.input[2] - 1 - i2) / step + 1, 0, run);
            const std::int64_t low =
                i2 >= 0 ? 0 : std::min<std::int64_t>(high, (step - 1 - i2) / step);
            std::fill(out, out + low, T(0));
            for (std::int64_t j = low; j < high; ++j) out[j] = row[i2 + j * step];
            std::fill(out + high, out + run, T(0));
          }
        }
}

// Positions whose columns are gathered at a time.
std::int64_t columns_at_a_time(std::int64_t depth) {
  return std::clamp<std::int64_t>(65536 / std::max<std::int64_t>(depth, 1), 64, 4096);
}

// The im2col matrix is the image itself.
bool is_pointwise(const WindowGeometry& g) {
  return g.kernel_size() == 1 && g.output_size() == g.input_size() &&
         std::ranges::all_of(g.pad, [](std::int64_t pad) { return pad == 0; });
}

template <class T>
void convolve_as(ThreadPool& pool, const WindowGeometry& g, std::int64_t groups, const Tensor& x,
                 const Tensor& w, const Tensor* bias, Tensor& y) {
  const std::int64_t channels = w.dim(1);
  const std::int64_t filters = w.dim(0) / groups;
  const std::int64_t depth = channels * g.kernel_size();
  const std::int64_t positions = g.output_size();
  const bool pointwise = is_pointwise(g);
  const std::int64_t width = columns_at_a_time(depth);
  const std::int64_t pieces = (positions + width - 1) / width;
  const T* const image = x.data<T>().data();
  const T* const weights = w.data<T>().data();
  const T* const offsets = bias != nullptr ? bias->data<T>().data() : nullptr;
  T* const out = y.mutable_data<T>().data();
  pool.parallel_for(x.dim(0) * groups * pieces, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t begin = task % pieces * width;
    const std::int64_t end = std::min(positions, begin + width);
    const std::int64_t group = task / pieces % groups;
    const std::int64_t plane = task / pieces;  // batch * groups + group
    const T* input = image + plane * channels * g.input_size();
    T* target = out + plane * filters * positions + begin;
    for (std::int64_t m = 0; m < filters; ++m)
      std::fill_n(target + m * positions, end - begin,
                  offsets != nullptr ? offsets[group * filters + m] : T(0));
    const MatrixView<const T> taps{weights + group * filters * depth, depth};
    if (pointwise) {
      add_product<T>(filters, end - begin, depth, taps, {input + begin, positions},
                     {target, positions});
    } else {
      std::vector<T> columns(static_cast<std::size_t>(depth * (end - begin)));
      gather_columns(g, channels, input, begin, end, columns.data());
      add_product<T>(filters, end - begin, depth, taps, {columns.data(), end - begin},
                     {target, positions});
    }
  });
}

// Adds the taps' sums of one image and group: dw[filters, depth] += dy columns'.
template <class T>
void add_taps(const WindowGeometry& g, std::int64_t channels, std::int64_t filters, const T* image,
              const T* dy, T* dw) {
  const std::int64_t depth = channels * g.kernel_size();
  const std::int64_t positions = g.output_size();
  if (is_pointwise(g))
    return add_product<T>(filters, depth, positions, {dy, positions}, {image, positions, true},
                          {dw, depth});
  const std::int64_t width = columns_at_a_time(depth);
  std::vector<T> columns;
  for (std::int64_t begin = 0; begin < positions; begin += width) {
    const std::int64_t end = std::min(positions, begin + width);
    columns.resize(static_cast<std::size_t>(depth * (end - begin)));
    gather_columns(g, channels, image, begin, end, columns.data());
    add_product<T>(filters, depth, end - begin, {dy + begin, positions},
                   {columns.data(), end - begin, true}, {dw, depth});
  }
}

template <class T>
void correlate_as(ThreadPool& pool, const WindowGeometry& g, std::int64_t groups, const Tensor& x,
                  const Tensor& dy, Tensor& dw) {
  constexpr std::int64_t most_parts = 8;  // of the batch, summed apart
  const std::int64_t batch = x.dim(0);
  const std::int64_t channels = dw.dim(1);
  const std::int64_t filters = dw.dim(0) / groups;
  const std::int64_t area = filters * channels * g.kernel_size();  // of one group
  const std::int64_t parts = std::clamp<std::int64_t>(batch, 1, most_parts);
  std::vector<T> sums(static_cast<std::size_t>(parts * groups * area));
  const T* const image = x.data<T>().data();
  const T* const gradient = dy.data<T>().data();
  pool.parallel_for(parts * groups, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t part = task / groups, group = task % groups;
    for (std::int64_t n = part; n < batch; n += parts)
      add_taps(g, channels, filters, image + (n * groups + group) * channels * g.input_size(),
               gradient + (n * groups + group) * filters * g.output_size(),
               sums.data() + task * area);
  });
  T* const out = dw.mutable_data<T>().data();
  pool.parallel_for(groups * area, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T total = 0;
      for (std::int64_t part = 0; part < parts; ++part)
        total += sums[static_cast<std::size_t>(part * groups * area + i)];
      out[i] = total;
    }
  });
}

Kernel prepare_conv(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& w = inner.required_input(1);
      const ConvAttrs attrs = ConvAttrs::of(node, w.dims());
      Tensor& y = inner.output(0, x.dtype(), attrs.output_dims(x.dims(), w.dims()));
      convolve(inner.pool(), attrs, x, w, inner.input(2), y);
    });
  };
}

void infer_conv(InferContext& context) {
  const std::optional<Shape> shape =
      conv_shape(context.node(), context.input_shape(0), context.input_shape(1));
  if (shape) check_biases(context, 2, (*shape)[1]);
  context.set_output(0, context.input_dtype(0), shape);
}

OperandAxes float_conv_axes(const Node& node) { return conv_axes(node, 0, 1, 2); }

Cost conv_cost(const PrepareContext& context) {
  const Dims x = concrete(*context.input_type(0)->shape).value();
  const Dims w = concrete(*context.input_type(1)->shape).value();
  return {.macs = ConvAttrs::of(context.node(), w).macs(x, w)};
}

}  // namespace

ConvAttrs ConvAttrs::from(const Node& node, std::size_t weights) {
  std::vector<std::int64_t> kernel = get_ints(node, "kernel_shape");
  const Value* w = node.input(weights);
  if (kernel.empty() && w != nullptr && w->type.shape && w->type.shape->size() > 2)
    if (const auto dims = concrete(Shape(w->type.shape->begin() + 2, w->type.shape->end())))
      kernel = *dims;
  require(!kernel.empty(), "{}: kernel sizes are not known", node.describe());
  return {.window = Window::from(node, std::move(kernel)), .group = get_int(node, "group", 1)};
}

ConvAttrs ConvAttrs::of(const Node& node, const Dims& weights) {
  require(weights.size() >= 3, "expected weights of at least 3 axes, found {}", to_string(weights));
  return {.window = Window::from(node, Dims(weights.begin() + 2, weights.end())),
          .group = get_int(node, "group", 1)};
}

Attributes ConvAttrs::to_attributes() const {
  Attributes attributes;
  window.write(attributes);
  if (group != 1) attributes["group"] = group;
  return attributes;
}

void set_conv_groups(Node& node, std::int64_t groups) { node.graph().set_attribute(&node, "group", groups); }

Dims ConvAttrs::output_dims(const Dims& input, const Dims& weights) const {
  require(input.size() == window.rank() + 2 && weights.size() == input.size(),
          "expected an input and weights of {} axes, found {} and {}", window.rank() + 2,
          to_string(input), to_string(weights));
  require(group >= 1 && weights[0] % group == 0, "expected filters divisible by group {}, found {}",
          group, weights[0]);
  require(input[1] == weights[1] * group, "expected {} channels, found {}", weights[1] * group,
          input[1]);
  Dims dims{input[0], weights[0]};
  for (std::size_t axis = 0; axis < window.rank(); ++axis)
    dims.push_back(window.output_size(axis, input[axis + 2]));
  return dims;
}

std::int64_t ConvAttrs::macs(const Dims& input, const Dims& weights) const {
  return element_count(output_dims(input, weights)) * element_count(std::span(weights).subspan(1));
}

void convolve(ThreadPool& pool, const ConvAttrs& attrs, const Tensor& x, const Tensor& w,
              const Tensor* bias, Tensor& y) {
  require(bias == nullptr || bias->size() == w.dim(0), "expected {} biases, found {}", w.dim(0),
          bias == nullptr ? 0 : bias->size());
  const Dims in_spatial(x.dims().begin() + 2, x.dims().end());
  const Dims out_spatial(y.dims().begin() + 2, y.dims().end());
  convolve(pool, WindowGeometry::of(attrs.window, in_spatial, out_spatial), attrs.group, x, w, bias,
           y);
}

void convolve(ThreadPool& pool, const WindowGeometry& geometry, std::int64_t groups,
              const Tensor& x, const Tensor& w, const Tensor* bias, Tensor& y) {
  dispatch_floats(x.dtype(), [&](auto tag) {
    convolve_as<typename decltype(tag)::type>(pool, geometry, groups, x, w, bias, y);
  });
}

void correlate(ThreadPool& pool, const WindowGeometry& geometry, std::int64_t groups,
               const Tensor& x, const Tensor& dy, Tensor& dw) {
  dispatch_floats(x.dtype(), [&](auto tag) {
    correlate_as<typename decltype(tag)::type>(pool, geometry, groups, x, dy, dw);
  });
}

std::optional<Shape> conv_shape(const Node& node, const Shape* x, const Shape* w) {
  std::optional<Dims> kernel;
  if (w != nullptr) {
    require(w->size() >= 3, "expected weights of at least 3 axes, found {}", to_string(*w));
    kernel = concrete(Shape(w->begin() + 2, w->end()));
  }
  if (!kernel) kernel = find_ints(node, "kernel_shape");
  if (!kernel || x == nullptr) return std::nullopt;
  const Window window = Window::from(node, *kernel);
  require(x->size() == window.rank() + 2, "expected an input of {} axes, found {}",
          window.rank() + 2, to_string(*x));
  Shape shape = *x;
  shape[1] = Dim();
  if (w != nullptr) {
    shape[1] = (*w)[0];
    const std::int64_t group = get_int(node, "group", 1);
    require(group >= 1 && (!shape[1].is_known() || shape[1].value() % group == 0),
            "expected filters divisible by group {}, found {}", group, shape[1].to_string());
    if ((*x)[1].is_known() && (*w)[1].is_known())
      require((*x)[1].value() == (*w)[1].value() * group, "expected {} channels, found {}",
              (*w)[1].value() * group, (*x)[1].value());
  }
  for (std::size_t axis = 0; axis < window.rank(); ++axis)
    shape[axis + 2] = window.output_dim(axis, (*x)[axis + 2]);
  return shape;
}

void check_biases(const InferContext& context, std::size_t index, const Dim& filters) {
  const Shape* biases = context.input_shape(index);
  if (biases == nullptr || !filters.is_known()) return;
  const Dim count = product(*biases);
  require(!count.is_known() || count.value() == filters.value(), "expected {} biases, found {}",
          filters.to_string(), to_string(*biases));
}

OperandAxes conv_axes(const Node& node, std::size_t x, std::size_t w, std::size_t bias) {
  OperandAxes axes(node.input_count());
  const Value* weights = node.input(w);
  if (weights == nullptr || !weights->type.shape) return axes;
  const std::size_t rank = weights->type.shape->size();
  if (rank < 3) return axes;
  const AxisRole window{.kind = AxisRole::Kind::window};
  const auto output = [](std::int64_t axis) {
    return AxisRole{.kind = AxisRole::Kind::output, .output_axis = axis};
  };
  // With groups a channel of the input is neither kept nor summed over as one; in a depthwise
  // convolution with one filter a channel it is kept.
  const std::int64_t group = get_int(node, "group", 1);
  const Shape& shape = *weights->type.shape;
  const bool depthwise = group > 1 && same_dim(shape[0], Dim(group)) && same_dim(shape[1], Dim(1));
  axes[x].assign(rank, window);
  axes[x][0] = output(0);
  if (group == 1)
    axes[x][1] = {.kind = AxisRole::Kind::reduced};
  else
    axes[x][1] = depthwise ? output(1) : AxisRole{};
  axes[w].assign(rank, window);
  axes[w][0] = output(1);
  axes[w][1] = {.kind = AxisRole::Kind::reduced};
  if (axes.size() > bias) axes[bias] = {output(1)};
  return axes;
}

OPERATORS(conv) {
  registry.add(OpDef{.name = "Conv",
                     .infer = infer_conv,
                     .prepare = prepare_conv,
                     .axes = float_conv_axes,
                     .cost = conv_cost});
}

}  // namespace onnxpress
