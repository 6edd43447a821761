// Gradients of layer, RMS, instance, group and mean-variance normalization, and of LRN.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/group_norm.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/run_sum.h"

namespace onnxpress {
namespace {

// A row's mean and the inverse of its deviation.
struct RowScale {
  double mean = 0, inverse = 0;
};

template <class T>
RowScale row_scale(const T* x, std::int64_t count, double epsilon, bool centered) {
  const auto n = static_cast<double>(count);
  RowScale scale;
  if (centered) scale.mean = run_sum(count, [x](std::int64_t i) { return x[i]; }) / n;
  const double squares = run_sum(count, [x, &scale](std::int64_t i) {
    const double value = static_cast<double>(x[i]) - scale.mean;
    return value * value;
  });
  scale.inverse = 1 / std::sqrt(squares / n + epsilon);
  return scale;
}

// A row normalized: with n = (x - mean) inverse and h the gradient of n, dx = (h - mean(h) -
// n mean(h n)) inverse, without mean(h) where the row is not centered. h(i) is that of element i.
template <class T, class Gradient>
void normalized_row(const T* x, const RowScale& scale, std::int64_t count, bool centered,
                    const Gradient& h, T* dx) {
  const double sum = run_sum(count, h);
  const double product = run_sum(count, [&](std::int64_t i) {
    return static_cast<double>(h(i)) * (static_cast<double>(x[i]) - scale.mean);
  });
  const auto n = static_cast<double>(count);
  const double shift = centered ? sum / n : 0;
  const double slope = product * scale.inverse * scale.inverse / n;
  for (std::int64_t i = 0; i < count; ++i)
    dx[i] = static_cast<T>((static_cast<double>(h(i)) - shift -
                            (static_cast<double>(x[i]) - scale.mean) * slope) *
                           scale.inverse);
}

// dy times the normalized values, of x's dims: what the scale's gradient is summed from.
template <class T>
void weigh_row(const T* x, const T* dy, const RowScale& scale, std::int64_t count, T* products) {
  for (std::int64_t i = 0; i < count; ++i)
    products[i] = static_cast<T>(static_cast<double>(dy[i]) *
                                 (static_cast<double>(x[i]) - scale.mean) * scale.inverse);
}

template <bool centered>
BackwardKernel prepare_layer_norm(const PrepareContext& plan) {
  return [attrs = LayerNormAttrs::from(plan.node())](BackwardContext& context) {
    require(context.output_gradient(1) == nullptr && context.output_gradient(2) == nullptr,
            "no gradient goes through the mean and the deviation");
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const auto split = x.dims().begin() + normalize_axis(attrs.axis, x.rank());
    const Dims inner(split, x.dims().end());
    const std::int64_t width = element_count(inner);
    const std::int64_t rows = element_count(Dims(x.dims().begin(), split));
    const Tensor& given = context.required_input(1);
    const Tensor scale = given.reshaped(without_leading_ones(given.dims(), inner.size()));
    // h = dy * scale, then summed products for the scale.
    const Tensor h = combined(context.pool(), x.dims(), dy, scale, scale,
                              [](auto g, auto factor, auto) { return g * factor; });
    Tensor products;
    if (context.wants_gradient(1)) products = Tensor::uninitialized(x.dtype(), x.dims());
    const bool wants_x = context.wants_gradient(0);
    dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const in = x.data<T>().data();
      const T* const g = dy.data<T>().data();
      const T* const weighted = h.data<T>().data();
      T* const dx = wants_x ? context.gradient(0).mutable_data<T>().data() : nullptr;
      T* const p = products.defined() ? products.mutable_data<T>().data() : nullptr;
      context.pool().parallel_for(rows, 8, [=, &attrs](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const std::int64_t at = row * width;
          const RowScale found = row_scale(in + at, width, attrs.epsilon, centered);
          if (dx != nullptr)
            normalized_row(in + at, found, width, centered,
                           [&](std::int64_t i) { return weighted[at + i]; }, dx + at);
          if (p != nullptr) weigh_row(in + at, g + at, found, width, p + at);
        }
      });
    });
    const auto put = [&](std::size_t index, const Tensor& full) {
      put_sum(context, index, full, without_leading_ones(context.input_dims(index), inner.size()));
    };
    if (context.wants_gradient(1)) put(1, products);
    if (context.wants_gradient(2)) put(2, dy);
  };
}

BackwardKernel prepare_group_norm(const PrepareContext& plan) {
  return [attrs = GroupNormAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const Tensor& scale = context.required_input(1);
    const std::int64_t channels = x.dim(1);
    const std::int64_t groups = attrs.groups == 0 ? channels : attrs.groups;
    const std::int64_t shared = channels / scale.size();  // channels under one scale
    const std::int64_t cells = element_count(std::span(x.dims()).subspan(2));
    const std::int64_t size = channels / groups * cells;
    Tensor products;
    if (context.wants_gradient(1)) products = Tensor::uninitialized(x.dtype(), x.dims());
    const bool wants_x = context.wants_gradient(0);
    dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const in = x.data<T>().data();
      const T* const g = dy.data<T>().data();
      const T* const a = scale.data<T>().data();
      T* const dx = wants_x ? context.gradient(0).mutable_data<T>().data() : nullptr;
      T* const p = products.defined() ? products.mutable_data<T>().data() : nullptr;
      context.pool().parallel_for(x.dim(0) * groups, 1, [=, &attrs](std::int64_t task,
                                                                    std::int64_t) {
        const std::int64_t at = task * size;
        const RowScale found = row_scale(in + at, size, attrs.epsilon, true);
        const std::int64_t channel = task % groups * (channels / groups);
        if (dx != nullptr)
          normalized_row(in + at, found, size, true,
                         [&](std::int64_t i) { return g[at + i] * a[(channel + i / cells) / shared]; },
                         dx + at);
        if (p != nullptr) weigh_row(in + at, g + at, found, size, p + at);
      });
      // [N, parameters, shared * cells] to [parameters].
      for (const std::size_t index : {std::size_t{1}, std::size_t{2}})
        if (context.wants_gradient(index))
          sum_around<T>(context.pool(), index == 1 ? products.data<T>().data() : g, x.dim(0),
                        scale.size(), shared * cells,
                        context.gradient(index).mutable_data<T>().data());
    });
  };
}

// y = (x - mean) / (deviation + 1e-9) over the axes.
BackwardKernel prepare_mean_variance(const PrepareContext& plan) {
  return [axes = get_ints(plan.node(), "axes", {0, 2, 3})](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    Dims dims = x.dims();
    for (const std::int64_t axis : normalize_axes(axes, x.rank()))
      dims[static_cast<std::size_t>(axis)] = 1;
    ThreadPool& pool = context.pool();
    const double count = static_cast<double>(x.size()) / static_cast<double>(element_count(dims));
    const auto mean = [&](const Tensor& values) {
      const Tensor sum = sum_to(pool, values, dims);
      return combined(pool, dims, sum, sum, sum, [count](auto total, auto, auto) {
        return total / static_cast<decltype(total)>(count);
      });
    };
    const auto times = [](auto a, auto b, auto) { return a * b; };
    const auto less = [](auto a, auto b, auto) { return a - b; };
    const Tensor means = mean(x);
    const Tensor centered = combined(pool, x.dims(), x, means, means, less);
    const Tensor variance = mean(combined(pool, x.dims(), centered, centered, centered, times));
    const Tensor product = mean(combined(pool, x.dims(), dy, centered, centered, times));
    const Tensor slope = combined(pool, dims, product, variance, variance,
                                  [](auto gx, auto power, auto) {
                                    const auto deviation = std::sqrt(power);
                                    const auto divisor = deviation + decltype(power)(1e-9);
                                    return power == 0 ? power : gx / (divisor * deviation);
                                  });
    const Tensor gradient_mean = mean(dy);
    const Tensor shifted = combined(pool, x.dims(), dy, gradient_mean, gradient_mean, less);
    const Tensor flat = combined(pool, x.dims(), centered, slope, shifted,
                                 [](auto value, auto by, auto g) { return g - value * by; });
    context.forward_gradient(0, combined(pool, x.dims(), flat, variance, variance,
                                         [](auto g, auto power, auto) {
                                           return g / (std::sqrt(power) + decltype(power)(1e-9));
                                         }));
  };
}

// y_c = x_c d_c^-beta with d_c = bias + alpha / size * sum of x^2 over the channels around c.
BackwardKernel prepare_lrn(const PrepareContext& plan) {
  const Node& node = plan.node();
  const std::int64_t size = require_int(node, "size");
  return [=, alpha = double{get_float(node, "alpha", 0.0001f)} / static_cast<double>(size),
          beta = double{get_float(node, "beta", 0.75f)},
          bias = double{get_float(node, "bias", 1.0f)}](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const std::int64_t channels = x.dim(1);
    const std::int64_t cells = element_count(std::span(x.dims()).subspan(2));
    Tensor& dx = context.gradient(0);
    dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const in = x.data<T>().data();
      const T* const g = dy.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      context.pool().parallel_for(x.dim(0) * cells, 64, [=](std::int64_t begin, std::int64_t end) {
        std::vector<double> base(static_cast<std::size_t>(channels));
        for (std::int64_t place = begin; place < end; ++place) {
          const std::int64_t start = place / cells * channels * cells + place % cells;
          const auto value = [&](const T* from, std::int64_t c) {
            return static_cast<double>(from[start + c * cells]);
          };
          for (std::int64_t c = 0; c < channels; ++c) {
            double squares = 0;
            for (std::int64_t k = std::max<std::int64_t>(0, c - (size - 1) / 2);
                 k <= std::min(channels - 1, c + size / 2); ++k)
              squares += value(in, k) * value(in, k);
            base[static_cast<std::size_t>(c)] = bias + alpha * squares;
          }
          for (std::int64_t j = 0; j < channels; ++j) {
            double sum = 0;
            for (std::int64_t c = std::max<std::int64_t>(0, j - size / 2);
                 c <= std::min(channels - 1, j + (size - 1) / 2); ++c)
              sum += value(g, c) * value(in, c) *
                     std::pow(base[static_cast<std::size_t>(c)], -beta - 1);
            out[start + j * cells] =
                static_cast<T>(value(g, j) * std::pow(base[static_cast<std::size_t>(j)], -beta) -
                               2 * alpha * beta * value(in, j) * sum);
          }
        }
      });
    });
  };
}

}  // namespace

OPERATORS(normalization_gradient) {
  const auto add = [&](const char* op, auto prepare, std::uint64_t inputs) {
    registry.add(
        GradientDef{.name = op, .prepare = prepare, .reads_inputs = inputs, .reads_outputs = 0});
  };
  add("LayerNormalization", prepare_layer_norm<true>, bits_of(0, 1));
  add("RMSNormalization", prepare_layer_norm<false>, bits_of(0, 1));
  add("InstanceNormalization", prepare_group_norm, bits_of(0, 1));
  add("GroupNormalization", prepare_group_norm, bits_of(0, 1));
  add("MeanVarianceNormalization", prepare_mean_variance, bits_of(0));
  add("LRN", prepare_lrn, bits_of(0));
}

}  // namespace onnxpress
