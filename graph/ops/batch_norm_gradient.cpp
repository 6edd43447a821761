// Gradient of BatchNormalization, with the statistics of the batch (training) or given ones.
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops/batch_norm.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/run_sum.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

// By channel: sums of dy and of dy (x - mean).
struct ChannelSums {
  std::vector<double> gradient, product;

  template <class T>
  ChannelSums(ThreadPool& pool, const BatchNormPlanes& planes, const T* dy, const T* x,
              const std::vector<double>& mean)
      : gradient(mean.size()), product(mean.size()) {
    pool.parallel_for(planes.channels, 1, [&](std::int64_t channel, std::int64_t) {
      const auto c = static_cast<std::size_t>(channel);
      for (std::int64_t n = 0; n < planes.batch; ++n) {
        const std::int64_t start = (n * planes.channels + channel) * planes.cells;
        gradient[c] += run_sum(planes.cells, [&](std::int64_t i) { return dy[start + i]; });
        product[c] += run_sum(planes.cells, [&](std::int64_t i) {
          return static_cast<double>(dy[start + i]) *
                 (static_cast<double>(x[start + i]) - mean[c]);
        });
      }
    });
  }
};

// dx = slope dy - shift - tilt (x - mean), by channel.
struct ChannelLine {
  std::vector<double> slope, shift, tilt;
};

template <class T>
void put_x(BackwardContext& context, const BatchNormPlanes& planes, const T* dy, const T* x,
           const std::vector<double>& mean, const ChannelLine& line) {
  T* const dx = context.gradient(0).mutable_data<T>().data();
  context.pool().parallel_for(
      planes.batch * planes.channels, 8, [&, dx](std::int64_t begin, std::int64_t end) {
        for (std::int64_t plane = begin; plane < end; ++plane) {
          const auto c = static_cast<std::size_t>(plane % planes.channels);
          const T a = static_cast<T>(line.slope[c]), b = static_cast<T>(line.tilt[c]);
          const T m = static_cast<T>(mean[c]), s = static_cast<T>(line.shift[c]);
          for (std::int64_t i = plane * planes.cells; i < (plane + 1) * planes.cells; ++i)
            dx[i] = a * dy[i] - s - b * (x[i] - m);
        }
      });
}

std::vector<double> wide(const Tensor& tensor) {
  const Tensor converted = tensor.cast(DType::float64);
  const auto values = converted.data<double>();
  return {values.begin(), values.end()};
}

// What the forward call has used.
BatchStatistics statistics(BackwardContext& context, const BatchNormAttrs& attrs,
                           const BatchNormPlanes& planes) {
  if (!attrs.training) return {wide(context.required_input(3)), wide(context.required_input(4))};
  if (attrs.keeps_statistics) return {wide(context.required_output(3)), wide(context.required_output(4))};
  return BatchStatistics::of(context.pool(), planes, context.required_input(0));
}

template <class T>
void differentiate_planes(BackwardContext& context, const BatchNormAttrs& attrs) {
  const Tensor& x = context.required_input(0);
  const BatchNormPlanes planes = BatchNormPlanes::of(x.dims(), attrs.per_channel);
  const T* const in = x.data<T>().data();
  const T* const dy = context.required_gradient(0).data<T>().data();
  const std::vector<double> scale = wide(context.required_input(1));
  const BatchStatistics used = statistics(context, attrs, planes);
  const ChannelSums sums(context.pool(), planes, dy, in, used.mean);
  const auto channels = scale.size();
  const auto count = static_cast<double>(planes.batch * planes.cells);
  std::vector<double> inverse(channels);
  ChannelLine line{std::vector<double>(channels), std::vector<double>(channels),
                   std::vector<double>(channels)};
  for (std::size_t c = 0; c < channels; ++c) {
    inverse[c] = 1 / std::sqrt(used.variance[c] + double{attrs.epsilon});
    line.slope[c] = scale[c] * inverse[c];
    if (!attrs.training) continue;
    line.shift[c] = line.slope[c] * sums.gradient[c] / count;
    line.tilt[c] = line.slope[c] * inverse[c] * inverse[c] * sums.product[c] / count;
  }
  if (context.wants_gradient(0)) put_x(context, planes, dy, in, used.mean, line);
  // Of scale, bias, mean and variance; the batch's own statistics follow x.
  const auto put = [&](std::size_t index, auto&& of) {
    if (!context.wants_gradient(index)) return;
    Tensor values = Tensor::uninitialized(DType::float64, context.input_dims(index));
    for (std::size_t c = 0; c < channels; ++c) values.mutable_data<double>()[c] = of(c);
    context.forward_gradient(index, values.cast(context.input_dtype(index)));
  };
  put(1, [&](std::size_t c) { return sums.product[c] * inverse[c]; });
  put(2, [&](std::size_t c) { return sums.gradient[c]; });
  put(3, [&](std::size_t c) { return attrs.training ? 0.0 : -line.slope[c] * sums.gradient[c]; });
  put(4, [&](std::size_t c) {
    return attrs.training
               ? 0.0
               : -0.5 * line.slope[c] * inverse[c] * inverse[c] * sums.product[c];
  });
}

BackwardKernel prepare_batch_norm(const PrepareContext& plan) {
  return [attrs = BatchNormAttrs::from(plan.node())](BackwardContext& context) {
    for (std::size_t i = 1; i < 5; ++i)
      require(context.output_gradient(i) == nullptr,
              "no gradient goes through the running statistics");
    dispatch_floats(context.required_gradient(0).dtype(), [&]<class T>(std::type_identity<T>) {
      differentiate_planes<T>(context, attrs);
    });
  };
}

}  // namespace

OPERATORS(batch_norm_gradient) {
  for (const std::string_view domain : {std::string_view(), training_domain})
    registry.add(GradientDef{.name = "BatchNormalization",
                             .domain = std::string(domain),
                             .prepare = prepare_batch_norm,
                             .reads_inputs = bits_of(0, 1, 3, 4),
                             .reads_outputs = domain == training_domain ? bits_of(3, 4) : 0});
}

}  // namespace onnxpress
