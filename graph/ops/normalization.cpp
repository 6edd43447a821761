// Layer, RMS, instance, group, mean-variance and Lp normalization, and LRN.
#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/group_norm.h"
#include "graph/ops/layer_norm.h"

namespace onnxpress {
namespace {

struct Moments {
  double mean, variance;
};

template <class T>
Moments moments(const T* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i];
  const double mean = sum / static_cast<double>(count);
  double squares = 0;
  for (std::int64_t i = 0; i < count; ++i) squares += (values[i] - mean) * (values[i] - mean);
  return {mean, squares / static_cast<double>(count)};
}

// `tensor` widened to the type computed in and stretched to `dims`; leading axes of size 1 that it
// has beyond these do not count.
Tensor stretched(const Tensor& tensor, const Dims& dims, DType type) {
  Tensor wide = tensor.cast(type);
  if (const Dims fewer = without_leading_ones(wide.dims(), dims.size()); fewer != wide.dims())
    wide = wide.reshaped(fewer);
  if (wide.dims() == dims) return wide;
  require(broadcast(wide.dims(), dims) == dims, "{} does not broadcast to {}",
          to_string(wide.dims()), to_string(dims));
  Tensor result = Tensor::uninitialized(type, dims);
  const Dims operands[] = {wide.dims()};
  const BroadcastPlan plan(dims, operands);
  ThreadPool serial(1);
  dispatch_floats(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = wide.data<T>().data();
    T* out = result.mutable_data<T>().data();
    plan.run(serial, [&](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i)
        out[start + i] = in[offsets[0] + i * plan.inner_stride(0)];
    });
  });
  return result;
}

struct RowTask {
  std::int64_t rows, width;
  Dims outer, inner;  // dims before and from `axis` on

  RowTask(const Dims& dims, std::int64_t axis) {
    const auto split = dims.begin() + normalize_axis(axis, dims.size());
    outer = Dims(dims.begin(), split);
    inner = Dims(split, dims.end());
    rows = element_count(outer);
    width = element_count(inner);
  }
};

// Layer normalization with `centered`, RMS normalization without. Computed in float32 (float64 for
// float64), as stash_type has it.
void normalize(KernelContext& context, const LayerNormAttrs& attrs, bool centered, DType stash) {
  const Tensor& input = context.required_input(0);
  const Tensor& scale = context.required_input(1);
  const Tensor* bias = centered ? context.input(2) : nullptr;
  const NormalizedRows rows =
      NormalizedRows::of(context.pool(), input.cast(float_compute_type(input.dtype())), attrs.axis,
                         attrs.epsilon, centered, scale, bias != nullptr ? *bias : Tensor());
  context.forward_output(0, rows.y.cast(input.dtype()));
  const Tensor* extra[] = {&rows.means, &rows.inverses};
  for (std::size_t i = 0; i < 2; ++i)
    if (centered && context.wants_output(i + 1))
      context.forward_output(i + 1, extra[i]->cast(stash));
}

Kernel prepare_layer_norm(const PrepareContext& prepare) {
  const auto attrs = LayerNormAttrs::from(prepare.node());
  const auto stash = static_cast<DType>(get_int(prepare.node(), "stash_type", 1));
  return [=](KernelContext& context) { normalize(context, attrs, true, stash); };
}

Kernel prepare_rms_norm(const PrepareContext& prepare) {
  const auto attrs = LayerNormAttrs::from(prepare.node());
  return [=](KernelContext& context) { normalize(context, attrs, false, DType::float32); };
}

void infer_layer_norm(InferContext& context) {
  infer_same_as_first(context);
  const auto stash = static_cast<DType>(get_int(context.node(), "stash_type", 1));
  std::optional<Shape> reduced;
  if (const Shape* x = context.input_shape(0)) {
    reduced = *x;
    const auto axis = normalize_axis(LayerNormAttrs::from(context.node()).axis, x->size());
    std::fill(reduced->begin() + axis, reduced->end(), Dim(1));
  }
  context.set_output(1, stash, reduced);
  context.set_output(2, stash, reduced);
}

// Normalizes each of `groups` groups of channels; scale and bias by channel, or by group.
void normalize_groups(KernelContext& context, std::int64_t groups, double epsilon) {
  const Tensor& x = context.required_input(0);
  require(x.rank() >= 2, "expected an input of at least 2 axes, found {}", to_string(x.dims()));
  const std::int64_t channels = x.dim(1);
  if (groups == 0) groups = channels;
  require(groups >= 1 && channels % groups == 0,
          "expected channels divisible by {} groups, found {}", groups, channels);
  const Tensor scale = context.required_input(1).cast(x.dtype());
  const Tensor bias = context.required_input(2).cast(x.dtype());
  require(scale.size() == bias.size() && (scale.size() == channels || scale.size() == groups),
          "expected {} scales and biases, found {} and {}", channels, scale.size(), bias.size());
  const std::int64_t shared = channels / scale.size();  // channels under one scale
  const std::int64_t cells = element_count(std::span(x.dims()).subspan(2));
  const std::int64_t members = channels / groups;
  Tensor& y = context.output(0, x.dtype(), x.dims());
  dispatch_floats(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = x.data<T>().data();
    const T* a = scale.data<T>().data();
    const T* b = bias.data<T>().data();
    T* out = y.mutable_data<T>().data();
    context.pool().parallel_for(x.dim(0) * groups, 1, [=](std::int64_t task, std::int64_t) {
      const std::int64_t start = task * members * cells;
      const Moments found = moments(in + start, members * cells);
      const double inverse = 1 / std::sqrt(found.variance + epsilon);
      for (std::int64_t m = 0; m < members; ++m) {
        const std::int64_t parameter = (task % groups * members + m) / shared;
        for (std::int64_t i = start + m * cells; i < start + (m + 1) * cells; ++i)
          out[i] = static_cast<T>((in[i] - found.mean) * inverse) * a[parameter] + b[parameter];
      }
    });
  });
}

Kernel prepare_group_norm(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  const GroupNormAttrs attrs = GroupNormAttrs::from(node);
  require(node.is("InstanceNormalization") || attrs.groups > 0,
          "expected at least 1 group, found {}", attrs.groups);
  return [=](KernelContext& context) {
    run_as(context, float_compute_type,
           [&](KernelContext& inner) { normalize_groups(inner, attrs.groups, attrs.epsilon); });
  };
}

// x / |x|_p along one axis; zero vectors stay.
Kernel prepare_lp_norm(const PrepareContext& prepare) {
  const std::int64_t axis = get_int(prepare.node(), "axis", -1);
  const std::int64_t p = get_int(prepare.node(), "p", 2);
  require(p == 1 || p == 2, "attribute 'p': expected 1 or 2, found {}", p);
  return [=](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const RowTask task(x.dims(), axis);
      const std::int64_t size = task.inner.front();
      const std::int64_t step = element_count(std::span(task.inner).subspan(1));
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(task.rows * step, 64, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t start = i / step * size * step + i % step;
            double sum = 0;
            for (std::int64_t k = 0; k < size; ++k) {
              const double value = in[start + k * step];
              sum += p == 1 ? std::fabs(value) : value * value;
            }
            const double length = p == 1 ? sum : std::sqrt(sum);
            for (std::int64_t k = 0; k < size; ++k)
              out[start + k * step] =
                  length == 0 ? T(0) : static_cast<T>(in[start + k * step] / length);
          }
        });
      });
    });
  };
}

// Across channels: x / (bias + alpha / size * sum of squares of neighbours) ^ beta.
Kernel prepare_lrn(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  const double alpha = get_float(node, "alpha", 0.0001f);
  const double beta = get_float(node, "beta", 0.75f);
  const double bias = get_float(node, "bias", 1.0f);
  const std::int64_t size = require_int(node, "size");
  require(size >= 1, "attribute 'size': expected at least 1, found {}", size);
  return [=](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(x.rank() >= 2, "expected an input of at least 2 axes, found {}", to_string(x.dims()));
      const std::int64_t channels = x.dim(1);
      const std::int64_t cells = element_count(std::span(x.dims()).subspan(2));
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(x.dim(0) * channels, 1, [=](std::int64_t plane, std::int64_t) {
          const std::int64_t c = plane % channels;
          const std::int64_t first = std::max<std::int64_t>(0, c - (size - 1) / 2);
          const std::int64_t last = std::min(channels - 1, c + size / 2);
          for (std::int64_t i = 0; i < cells; ++i) {
            double squares = 0;
            for (std::int64_t k = first; k <= last; ++k) {
              const double value = in[(plane - c + k) * cells + i];
              squares += value * value;
            }
            const double divisor =
                std::pow(bias + alpha / static_cast<double>(size) * squares, beta);
            out[plane * cells + i] = static_cast<T>(in[plane * cells + i] / divisor);
          }
        });
      });
    });
  };
}

// Scale and bias of one axis each belong to `axis` of the output; other operands have no entry.
OperandAxes channel_axes(const Node& node, std::int64_t axis) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape) return axes;
  for (std::size_t i = 0; i < x->type.shape->size(); ++i)
    axes[0].push_back(
        {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)});
  for (std::size_t i = 1; i < axes.size(); ++i) {
    const Value* value = node.input(i);
    if (value != nullptr && value->type.shape && value->type.shape->size() == 1)
      axes[i] = {{.kind = AxisRole::Kind::output, .output_axis = axis}};
  }
  return axes;
}

OperandAxes instance_norm_axes(const Node& node) { return channel_axes(node, 1); }

OperandAxes layer_norm_axes(const Node& node) {
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || x->type.shape->empty())
    return OperandAxes(node.input_count());
  return channel_axes(node, static_cast<std::int64_t>(x->type.shape->size()) - 1);
}

}  // namespace

GroupNormAttrs GroupNormAttrs::from(const Node& node) {
  return {.groups = node.is("InstanceNormalization") ? 0 : require_int(node, "num_groups"),
          .epsilon = get_float(node, "epsilon", 1e-5f)};
}

Attributes GroupNormAttrs::to_attributes() const {
  Attributes attributes;
  if (groups > 0) attributes["num_groups"] = groups;
  attributes["epsilon"] = epsilon;
  return attributes;
}

Attributes l2_normalization_attributes(std::int64_t axis) {
  Attributes attributes;
  attributes["axis"] = axis;
  attributes["p"] = 2;
  return attributes;
}

Dims without_leading_ones(Dims dims, std::size_t rank) {
  while (dims.size() > rank && dims.front() == 1) dims.erase(dims.begin());
  return dims;
}

LayerNormAttrs LayerNormAttrs::from(const Node& node) {
  return {.axis = get_int(node, "axis", -1), .epsilon = get_float(node, "epsilon", 1e-5f)};
}

Attributes LayerNormAttrs::to_attributes() const {
  Attributes attributes;
  attributes["axis"] = axis;
  attributes["epsilon"] = epsilon;
  return attributes;
}

NormalizedRows NormalizedRows::of(ThreadPool& pool, const Tensor& x, std::int64_t axis,
                                  double epsilon, bool centered, const Tensor& given_scale,
                                  const Tensor& given_bias) {
  const DType type = x.dtype();
  const RowTask task(x.dims(), axis);
  // ONNX has them broadcast to a row, or (before the axis too) to the input.
  const auto fits_row = [&](const Tensor& tensor) {
    return !tensor.defined() || without_leading_ones(tensor.dims(), task.inner.size()).size() <= task.inner.size();
  };
  const bool is_by_row = fits_row(given_scale) && fits_row(given_bias);
  const Dims& stretch = is_by_row ? task.inner : x.dims();
  const Tensor scale = stretched(given_scale, stretch, type);
  const Tensor bias = given_bias.defined() ? stretched(given_bias, stretch, type) : Tensor();
  Dims dims = task.outer;
  dims.resize(x.rank(), 1);
  NormalizedRows rows{.y = Tensor::uninitialized(type, x.dims()),
                      .means = Tensor::uninitialized(DType::float64, dims),
                      .inverses = Tensor::uninitialized(DType::float64, dims)};
  dispatch_floats(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = x.data<T>().data();
    const T* a = scale.data<T>().data();
    const T* b = bias.defined() ? bias.data<T>().data() : nullptr;
    T* out = rows.y.mutable_data<T>().data();
    double* mean_out = rows.means.mutable_data<double>().data();
    double* inverse_out = rows.inverses.mutable_data<double>().data();
    pool.parallel_for(task.rows, 8, [=, width = task.width](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T* from = in + row * width;
        T* to = out + row * width;
        const std::int64_t at = is_by_row ? 0 : row * width;  // of scale and bias
        const Moments found = moments(from, width);
        const double mean = centered ? found.mean : 0;
        const double power = centered ? found.variance : found.variance + found.mean * found.mean;
        const double inverse = 1 / std::sqrt(power + epsilon);
        for (std::int64_t i = 0; i < width; ++i)
          to[i] = static_cast<T>((from[i] - mean) * inverse) * a[at + i] + (b != nullptr ? b[at + i] : T(0));
        mean_out[row] = mean;
        inverse_out[row] = inverse;
      }
    });
  });
  return rows;
}

OPERATORS(normalization) {
  // ONNX defines LayerNormalization from 17 on; ONNX Runtime has it in older models too.
  registry.add(OpDef{.name = "LayerNormalization",
                     .infer = infer_layer_norm,
                     .prepare = prepare_layer_norm,
                     .axes = layer_norm_axes});
  registry.add(OpDef{.name = "RMSNormalization",
                     .since = 23,
                     .infer = infer_same_as_first,
                     .prepare = prepare_rms_norm,
                     .axes = layer_norm_axes});
  registry.add(OpDef{.name = "InstanceNormalization",
                     .infer = infer_same_as_first,
                     .prepare = prepare_group_norm,
                     .axes = instance_norm_axes});
  registry.add(OpDef{.name = "GroupNormalization",
                     .since = 18,
                     .infer = infer_same_as_first,
                     .prepare = prepare_group_norm});
  registry.add(
      OpDef{.name = "LpNormalization", .infer = infer_same_as_first, .prepare = prepare_lp_norm});
  registry.add(OpDef{.name = "LRN", .infer = infer_same_as_first, .prepare = prepare_lrn});
}

}  // namespace onnxpress
