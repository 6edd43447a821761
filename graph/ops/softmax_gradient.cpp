// Gradients of Softmax and LogSoftmax, and of the losses of ai.onnx.
#include <cmath>

#include "graph/ops/gradient_tools.h"
#include "graph/ops/loss.h"
#include "graph/ops/softmax.h"

namespace onnxpress {
namespace {

// dx = y (g - sum g y) of softmax, g - softmax sum g of its logarithm.
template <bool logarithm, class T>
void one_row(const T* y, const T* g, T* dx, std::int64_t size, std::int64_t step) {
  double sum = 0;
  for (std::int64_t k = 0; k < size * step; k += step)
    sum += static_cast<double>(g[k]) * (logarithm ? 1.0 : static_cast<double>(y[k]));
  const T shift = static_cast<T>(sum);
  for (std::int64_t k = 0; k < size * step; k += step)
    dx[k] = logarithm ? g[k] - std::exp(y[k]) * shift : y[k] * (g[k] - shift);
}

template <bool logarithm>
BackwardKernel prepare_softmax(const PrepareContext& plan) {
  return [attrs = SoftmaxAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& y = context.required_output(0);
    Tensor& dx = context.gradient(0);
    if (dx.size() == 0) return;
    const auto [size, step] = attrs.rows(y.dims());
    dispatch_floats(dy.dtype(), [&, size = size, step = step]<class T>(std::type_identity<T>) {
      const T* const values = y.data<T>().data();
      const T* const g = dy.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      const std::int64_t block = std::max<std::int64_t>(1, 4096 / size);
      context.pool().parallel_for(
          dx.size() / size, block, [=](std::int64_t begin, std::int64_t end) {
            for (std::int64_t row = begin; row < end; ++row) {
              const std::int64_t start = row / step * size * step + row % step;
              one_row<logarithm>(values + start, g + start, out + start, size, step);
            }
          });
    });
  };
}

// Of each target: what its loss weighs in the output, 0 where it is ignored.
template <class T>
std::vector<T> target_factors(BackwardContext& context, const LossAttrs& attrs,
                              const std::vector<std::int64_t>& targets) {
  const Tensor& dy = context.required_gradient(0);
  const Tensor* weights = context.input(2);
  std::vector<T> factors(targets.size(), T(0));
  double total = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (attrs.ignored && targets[i] == *attrs.ignored) continue;
    factors[i] = weights != nullptr ? weights->data<T>()[static_cast<std::size_t>(targets[i])] : T(1);
    total += static_cast<double>(factors[i]);
  }
  const bool is_list = attrs.reduction == LossAttrs::Reduction::none;
  const double scale = attrs.reduction == LossAttrs::Reduction::mean ? 1 / total : 1;
  for (std::size_t i = 0; i < targets.size(); ++i)
    factors[i] *= dy.data<T>()[is_list ? i : 0] * static_cast<T>(scale);
  return factors;
}

template <bool on_logits>
BackwardKernel prepare_loss(const PrepareContext& plan) {
  return [attrs = LossAttrs::from(plan.node())](BackwardContext& context) {
    const LossShape shape(context.input_dims(0), context.input_dims(1));
    const std::vector<std::int64_t> targets = context.required_input(1).to_ints();
    Tensor& dx = context.gradient(0);
    const Tensor* const dp = on_logits ? context.output_gradient(1) : nullptr;
    dispatch_floats(dx.dtype(), [&]<class T>(std::type_identity<T>) {
      std::vector<T> factors(targets.size(), T(0));
      if (context.output_gradient(0) != nullptr)
        factors = target_factors<T>(context, attrs, targets);
      const T* const x = on_logits ? context.required_input(0).data<T>().data() : nullptr;
      T* const out = dx.mutable_data<T>().data();
      for_elements(context.pool(), shape.samples * shape.inner, [&](std::int64_t line) {
        const std::int64_t start =
            line / shape.inner * shape.classes * shape.inner + line % shape.inner;
        const std::int64_t stop = start + shape.classes * shape.inner;
        const T factor = factors[static_cast<std::size_t>(line)];
        const std::int64_t target = targets[static_cast<std::size_t>(line)];
        if (!on_logits) {
          for (std::int64_t at = start; at < stop; at += shape.inner) out[at] = T(0);
        } else {
          T largest = x[start];
          for (std::int64_t at = start; at < stop; at += shape.inner)
            largest = std::max(largest, x[at]);
          double sum = 0, through_output = 0;
          for (std::int64_t at = start; at < stop; at += shape.inner) {
            sum += std::exp(static_cast<double>(x[at] - largest));
            if (dp != nullptr) through_output += static_cast<double>(dp->data<T>()[static_cast<std::size_t>(at)]);
          }
          const T share = static_cast<T>((static_cast<double>(factor) - through_output) / sum);
          for (std::int64_t at = start; at < stop; at += shape.inner) {
            out[at] = share * std::exp(x[at] - largest);
            if (dp != nullptr) out[at] += dp->data<T>()[static_cast<std::size_t>(at)];
          }
        }
        if (factor != 0) out[start + target * shape.inner] -= factor;
      });
    });
  };
}

}  // namespace

OPERATORS(softmax_gradient) {
  registry.add(GradientDef{.name = "Softmax",
                           .prepare = prepare_softmax<false>,
                           .reads_inputs = 0,
                           .reads_outputs = bits_of(0)});
  registry.add(GradientDef{.name = "LogSoftmax",
                           .prepare = prepare_softmax<true>,
                           .reads_inputs = 0,
                           .reads_outputs = bits_of(0)});
  registry.add(GradientDef{.name = "NegativeLogLikelihoodLoss",
                           .prepare = prepare_loss<false>,
                           .reads_inputs = bits_of(1, 2),
                           .reads_outputs = 0});
  registry.add(GradientDef{.name = "SoftmaxCrossEntropyLoss",
                           .prepare = prepare_loss<true>,
                           .reads_inputs = bits_of(0, 1, 2),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
