// BatchNormalization of float32 images and its gradient, channel by channel: a channel's sums are
// taken while it is brought into the cache that its elements are then computed in.
#include "graph/ops/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>

#include "graph/kernels/normalization_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/registry.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

// Shorter runs are not worth a loop of their own.
constexpr std::int64_t least_cells = 8;

bool supports(const PrepareContext& context) {
  for (std::size_t i = 0; i < 5; ++i)
    if (!is_float_operand(context.input_type(i))) return false;
  const BatchNormAttrs attrs = BatchNormAttrs::from(context.node());
  return attrs.per_channel &&
         BatchNormPlanes::of(dims_of(context.input_type(0)), true).cells >= least_cells;
}

Planes channel_of(const BatchNormPlanes& planes) {
  return {.planes = planes.batch, .stride = planes.channels * planes.cells, .cells = planes.cells};
}

// Of one channel.
struct ChannelStatistics {
  double mean = 0, variance = 0;

  // Of a batch.
  static ChannelStatistics of(const float* x, const Planes& channel) {
    const auto first = static_cast<double>(*x);
    const auto count = static_cast<double>(channel.planes * channel.cells);
    const SumAndSquares found = plane_moments(x, channel, first);
    const double away = found.sum / count;
    return {.mean = first + away, .variance = std::max(0.0, found.squares / count - away * away)};
  }
};

const float* floats(const Tensor& tensor) { return tensor.data<float>().data(); }

struct Call {
  BatchNormAttrs attrs;
  BatchNormPlanes planes;

  explicit Call(const PrepareContext& context)
      : attrs(BatchNormAttrs::from(context.node())),
        planes(BatchNormPlanes::of(dims_of(context.input_type(0)), true)) {}

  void operator()(KernelContext& context) const {
    const Tensor& x = context.required_input(0);
    const float* const scale = floats(context.required_input(1));
    const float* const bias = floats(context.required_input(2));
    const float* const old_mean = floats(context.required_input(3));
    const float* const old_variance = floats(context.required_input(4));
    const float* const in = floats(x);
    const auto wanted = [&]<class T>(std::type_identity<T>, std::size_t index, const Dims& dims) -> T* {
      if (!context.wants_output(index)) return nullptr;
      return context.output(index, dtype_of<T>, dims).template mutable_data<T>().data();
    };
    const Dims channels{planes.channels};
    float* const out = wanted(std::type_identity<float>(), 0, x.dims());
    float *running_mean = nullptr, *running_variance = nullptr;
    double *batch_mean = nullptr, *batch_variance = nullptr;
    if (attrs.training) {
      running_mean = wanted(std::type_identity<float>(), 1, channels);
      running_variance = wanted(std::type_identity<float>(), 2, channels);
    }
    if (attrs.keeps_statistics) {
      batch_mean = wanted(std::type_identity<double>(), 3, channels);
      batch_variance = wanted(std::type_identity<double>(), 4, channels);
    }
    const Planes channel = channel_of(planes);
    const double count = static_cast<double>(planes.batch * planes.cells), momentum = attrs.momentum_for(count);
    const double unbiased = attrs.unbiased && count > 1 ? count / (count - 1) : 1;
    context.pool().parallel_for(planes.channels, 1, [&](std::int64_t c, std::int64_t) {
      const std::int64_t start = c * planes.cells;
      ChannelStatistics used{static_cast<double>(old_mean[c]), static_cast<double>(old_variance[c])};
      if (attrs.training) {
        const ChannelStatistics batch = ChannelStatistics::of(in + start, channel);
        const auto blend = [&](double old, double found) {
          return static_cast<float>(momentum * old + (1 - momentum) * found);
        };
        if (running_mean) running_mean[c] = blend(used.mean, batch.mean);
        if (running_variance) running_variance[c] = blend(used.variance, batch.variance * unbiased);
        if (batch_mean) batch_mean[c] = batch.mean;
        if (batch_variance) batch_variance[c] = batch.variance;
        used = batch;
      }
      if (out == nullptr) return;
      const double factor =
          static_cast<double>(scale[c]) / std::sqrt(used.variance + static_cast<double>(attrs.epsilon));
      plane_affine(in + start, out + start, channel, static_cast<float>(factor),
                   static_cast<float>(static_cast<double>(bias[c]) - used.mean * factor));
    });
  }
};

Kernel prepare(const PrepareContext& context) { return Call(context); }

struct GradientOf {
  BatchNormAttrs attrs;
  BatchNormPlanes planes;

  explicit GradientOf(const PrepareContext& context)
      : attrs(BatchNormAttrs::from(context.node())),
        planes(BatchNormPlanes::of(dims_of(context.input_type(0)), true)) {}

  void operator()(BackwardContext& context) const {
    for (std::size_t i = 1; i < 5; ++i)
      require(context.output_gradient(i) == nullptr, "no gradient goes through the statistics");
    const float* const x = floats(context.required_input(0));
    const float* const scale = floats(context.required_input(1));
    const StatisticsOf statistics(*this, context);
    const float* const dy = floats(context.required_gradient(0));
    float* const dx = context.wants_gradient(0)
                          ? context.gradient(0).mutable_data<float>().data()
                          : nullptr;
    float* results[5] = {};
    for (std::size_t i = 1; i < 5; ++i)
      if (context.wants_gradient(i)) results[i] = context.gradient(i).mutable_data<float>().data();
    const Planes channel = channel_of(planes);
    const auto count = static_cast<double>(planes.batch * planes.cells);
    context.pool().parallel_for(planes.channels, 1, [&](std::int64_t c, std::int64_t) {
      const std::int64_t start = c * planes.cells;
      const ChannelStatistics used = statistics.of(c, x + start, channel);
      const GradientSums sums = plane_gradients(dy + start, x + start, channel, used.mean);
      const double inverse = 1 / std::sqrt(used.variance + static_cast<double>(attrs.epsilon));
      const double slope = static_cast<double>(scale[c]) * inverse;
      if (dx != nullptr) {
        // dx = slope (dy - mean(dy) - (x - mean) inverse^2 mean(dy (x - mean))).
        const double tilt = attrs.training ? slope * inverse * inverse * sums.product / count : 0;
        const double shift = attrs.training ? slope * sums.gradient / count : 0;
        plane_combine(dy + start, x + start, dx + start, channel, static_cast<float>(slope),
                      static_cast<float>(-tilt), static_cast<float>(tilt * used.mean - shift));
      }
      const double through_mean = attrs.training ? 0 : -slope * sums.gradient;
      const double through_variance = attrs.training ? 0 : -0.5 * slope * inverse * inverse * sums.product;
      const double values[] = {0, sums.product * inverse, sums.gradient, through_mean, through_variance};
      for (std::size_t i = 1; i < 5; ++i)
        if (results[i]) results[i][c] = static_cast<float>(values[i]);
    });
  }

 private:
  // Where the statistics of the forward call are.
  class StatisticsOf {
   public:
    StatisticsOf(const GradientOf& gradient, BackwardContext& context) : training_(gradient.attrs.training) {
      if (!training_) {
        given_mean_ = floats(context.required_input(3));
        given_variance_ = floats(context.required_input(4));
      } else if (gradient.attrs.keeps_statistics) {
        mean_ = context.required_output(3).data<double>().data();
        variance_ = context.required_output(4).data<double>().data();
      }
    }

    ChannelStatistics of(std::int64_t c, const float* x, const Planes& channel) const {
      if (!training_) return {static_cast<double>(given_mean_[c]), static_cast<double>(given_variance_[c])};
      return mean_ ? ChannelStatistics{mean_[c], variance_[c]} : ChannelStatistics::of(x, channel);
    }

   private:
    bool training_;
    const float *given_mean_ = nullptr, *given_variance_ = nullptr;
    const double *mean_ = nullptr, *variance_ = nullptr;
  };
};

BackwardKernel prepare_gradient(const PrepareContext& context) { return GradientOf(context); }

}  // namespace

OPERATORS(batch_norm_rows) {
  for (const std::string_view domain : {std::string_view(), training_domain}) {
    registry.add(KernelDef{.name = "BatchNormalization",
                           .domain = std::string(domain),
                           .backend = "vector",
                           .supports = supports,
                           .prepare = prepare});
    registry.add(GradientDef{.name = "BatchNormalization",
                             .domain = std::string(domain),
                             .backend = "vector",
                             .supports = supports,
                             .prepare = prepare_gradient,
                             .reads_inputs = bits_of(0, 1, 3, 4),
                             .reads_outputs = domain == training_domain ? bits_of(3, 4) : 0});
  }
}

}  // namespace onnxpress
