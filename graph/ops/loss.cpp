#include "graph/ops/loss.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// The losses of all targets, or what `attrs` makes of them, as output 0. A mean is that of the
// targets not ignored, by weight: not a number when these weigh nothing.
template <class T>
void put_loss(KernelContext& context, const LossAttrs& attrs, const LossShape& shape,
              const T* log_probabilities, DType type) {
  const Tensor& target_input = context.required_input(1);
  require(is_integer(target_input.dtype()), "expected integer targets, found {}",
          name(target_input.dtype()));
  const Tensor targets = target_input.cast(DType::int64);
  const T* weights = nullptr;
  if (const Tensor* given = context.input(2)) {
    require(given->dims() == Dims{shape.classes}, "expected weights [{}], found {}", shape.classes,
            to_string(given->dims()));
    weights = given->data<T>().data();
  }
  const bool is_list = attrs.reduction == LossAttrs::Reduction::none;
  Tensor& output = context.output(0, type, is_list ? targets.dims() : Dims{});
  T* losses = output.mutable_data<T>().data();
  double sum = 0, total_weight = 0;
  const auto target = targets.data<std::int64_t>();
  for (std::size_t i = 0; i < target.size(); ++i) {
    const bool counts = !attrs.ignored || target[i] != *attrs.ignored;
    T loss = 0;
    if (counts) {
      require(0 <= target[i] && target[i] < shape.classes,
              "expected a target from 0 to {}, found {}", shape.classes - 1, target[i]);
      const auto place = static_cast<std::int64_t>(i);
      const T weight = weights != nullptr ? weights[target[i]] : T{1};
      loss = -log_probabilities[(place / shape.inner * shape.classes + target[i]) * shape.inner +
                                place % shape.inner] *
             weight;
      total_weight += static_cast<double>(weight);
    }
    if (is_list) losses[i] = loss;
    sum += static_cast<double>(loss);
  }
  if (attrs.reduction == LossAttrs::Reduction::mean) sum /= total_weight;
  if (!is_list) losses[0] = static_cast<T>(sum);
}

Kernel prepare_nll_loss(const PrepareContext& prepare) {
  return [attrs = LossAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const LossShape shape(x.dims(), inner.required_input(1).dims());
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        put_loss<T>(inner, attrs, shape, x.data<T>().data(), x.dtype());
      });
    });
  };
}

// log(softmax(scores)) over the classes, written to `result`.
template <class T>
void log_softmax(ThreadPool& pool, const LossShape& shape, const T* scores, T* result) {
  const std::int64_t block =
      std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(shape.classes, 1));
  pool.parallel_for(shape.samples * shape.inner, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t start =
          line / shape.inner * shape.classes * shape.inner + line % shape.inner;
      const std::int64_t stop = start + shape.classes * shape.inner;
      if (start == stop) continue;
      T largest = scores[start];
      for (std::int64_t at = start; at < stop; at += shape.inner)
        largest = std::max(largest, scores[at]);
      double sum = 0;
      for (std::int64_t at = start; at < stop; at += shape.inner)
        sum += std::exp(static_cast<double>(scores[at]) - static_cast<double>(largest));
      const double shift = static_cast<double>(largest) + std::log(sum);
      for (std::int64_t at = start; at < stop; at += shape.inner)
        result[at] = static_cast<T>(static_cast<double>(scores[at]) - shift);
    }
  });
}

Kernel prepare_cross_entropy(const PrepareContext& prepare) {
  return [attrs = LossAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const LossShape shape(x.dims(), inner.required_input(1).dims());
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        Tensor own;
        if (!inner.wants_output(1)) own = Tensor::uninitialized(x.dtype(), x.dims());
        Tensor& result = own.defined() ? own : inner.output(1, x.dtype(), x.dims());
        T* probabilities = result.mutable_data<T>().data();
        log_softmax<T>(inner.pool(), shape, x.data<T>().data(), probabilities);
        put_loss<T>(inner, attrs, shape, probabilities, x.dtype());
      });
    });
  };
}

void infer_loss(InferContext& context) {
  const LossAttrs attrs = LossAttrs::from(context.node());
  const Shape* scores = context.input_shape(0);
  const Shape* targets = context.input_shape(1);
  std::optional<Shape> losses;
  if (targets != nullptr) losses = *targets;
  if (scores != nullptr) {
    require(scores->size() >= 2, "expected scores [samples, classes, ...], found {}",
            to_string(*scores));
    Shape expected = *scores;
    expected.erase(expected.begin() + 1);
    if (losses) {
      require(losses->size() == expected.size(), "expected targets {}, found {}",
              to_string(expected), to_string(*losses));
      for (std::size_t i = 0; i < expected.size(); ++i)
        expected[i] = unify(expected[i], (*losses)[i], "dims of scores and targets");
    }
    losses = std::move(expected);
  }
  if (attrs.reduction != LossAttrs::Reduction::none) losses = Shape{};
  context.set_output(0, context.input_dtype(0), std::move(losses));
}

void infer_cross_entropy(InferContext& context) {
  infer_loss(context);
  const Shape* scores = context.input_shape(0);
  context.set_output(1, context.input_dtype(0),
                     scores != nullptr ? std::optional(*scores) : std::nullopt);
}

}  // namespace

LossAttrs LossAttrs::from(const Node& node) {
  LossAttrs attrs{.ignored = find_int(node, "ignore_index")};
  const std::string text = get_string(node, "reduction", "mean");
  if (text == "none")
    attrs.reduction = Reduction::none;
  else if (text == "sum")
    attrs.reduction = Reduction::sum;
  else
    require(text == "mean", "attribute 'reduction': expected none, sum or mean, found '{}'", text);
  return attrs;
}

LossShape::LossShape(const Dims& scores, const Dims& targets) {
  require(scores.size() >= 2, "expected scores [samples, classes, ...], found {}",
          to_string(scores));
  Dims expected = scores;
  expected.erase(expected.begin() + 1);
  require(targets == expected, "expected targets {}, found {}", to_string(expected),
          to_string(targets));
  samples = scores[0];
  classes = scores[1];
  inner = element_count(std::span(scores).subspan(2));
}

OPERATORS(loss) {
  registry.add(OpDef{.name = "NegativeLogLikelihoodLoss",
                     .since = 12,
                     .infer = infer_loss,
                     .prepare = prepare_nll_loss});
  registry.add(OpDef{.name = "SoftmaxCrossEntropyLoss",
                     .since = 12,
                     .infer = infer_cross_entropy,
                     .prepare = prepare_cross_entropy});
}

}  // namespace onnxpress
