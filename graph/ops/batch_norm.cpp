#include "graph/ops/batch_norm.h"

#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"
#include "graph/ops/run_sum.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

std::vector<double> channel_values(const KernelContext& context, std::size_t index,
                                   std::int64_t channels) {
  const Tensor& tensor = context.required_input(index);
  require(tensor.size() == channels, "expected {} values in input {}, found {}", channels, index,
          tensor.size());
  const Tensor wide = tensor.cast(DType::float64);
  const auto values = wide.data<double>();
  return {values.begin(), values.end()};
}

// Running statistics: momentum * old + (1 - momentum) * batch (opset 14).
void put_running(KernelContext& context, std::size_t index, const std::vector<double>& old,
                 const std::vector<double>& batch, double momentum, const Tensor& like) {
  if (!context.wants_output(index)) return;
  std::vector<double> blended(old.size());
  for (std::size_t i = 0; i < old.size(); ++i)
    blended[i] = momentum * old[i] + (1 - momentum) * batch[i];
  context.forward_output(index, Tensor::of<double>(like.dims(), blended).cast(like.dtype()));
}

void normalize(KernelContext& context, const BatchNormAttrs& attrs) {
  const Tensor& x = context.required_input(0);
  const BatchNormPlanes planes = BatchNormPlanes::of(x.dims(), attrs.per_channel);
  const auto scale = channel_values(context, 1, planes.channels);
  const auto bias = channel_values(context, 2, planes.channels);
  BatchStatistics used{channel_values(context, 3, planes.channels),
                  channel_values(context, 4, planes.channels)};
  Tensor& y = context.output(0, x.dtype(), x.dims());
  dispatch_floats(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = x.data<T>().data();
    T* out = y.mutable_data<T>().data();
    if (attrs.training) {
      BatchStatistics batch = BatchStatistics::of(context.pool(), planes, x);
      const auto count = static_cast<double>(planes.batch * planes.cells);
      const float momentum = attrs.momentum_for(count);
      put_running(context, 1, used.mean, batch.mean, momentum, context.required_input(3));
      std::vector<double> variance = batch.variance;
      if (attrs.unbiased && count > 1)
        for (double& value : variance) value *= count / (count - 1);
      put_running(context, 2, used.variance, variance, momentum, context.required_input(4));
      if (attrs.keeps_statistics) {
        const Dims& dims = context.required_input(3).dims();
        context.forward_output(3, Tensor::of<double>(dims, batch.mean));
        context.forward_output(4, Tensor::of<double>(dims, batch.variance));
      }
      used = std::move(batch);
    }
    context.pool().parallel_for(
        planes.batch * planes.channels, 8, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t plane = begin; plane < end; ++plane) {
            const auto c = static_cast<std::size_t>(plane % planes.channels);
            const double factor =
                scale[c] / std::sqrt(used.variance[c] + static_cast<double>(attrs.epsilon));
            const T a = static_cast<T>(factor);
            const T b = static_cast<T>(bias[c] - used.mean[c] * factor);
            for (std::int64_t i = plane * planes.cells; i < (plane + 1) * planes.cells; ++i)
              out[i] = in[i] * a + b;
          }
        });
  });
}

Kernel prepare_batch_norm(const PrepareContext& prepare) {
  return [attrs = BatchNormAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) { normalize(inner, attrs); });
  };
}

void infer_batch_norm(InferContext& context) {
  infer_same_as_first(context);
  const Shape* x = context.input_shape(0);
  if (x != nullptr && x->size() > 1 && BatchNormAttrs::from(context.node()).per_channel)
    for (std::size_t i = 1; i < 5; ++i)
      if (const Shape* shape = context.input_shape(i); shape != nullptr && !shape->empty())
        unify((*x)[1], (*shape)[0], "channels and statistics");
  for (std::size_t i = 1; i < context.node().output_count(); ++i)
    if (const Type* type = context.input_type(i < 3 ? i + 2 : i)) context.set_output(i, *type);
  if (!BatchNormAttrs::from(context.node()).keeps_statistics) return;
  for (const std::size_t i : {std::size_t{3}, std::size_t{4}})
    if (const Type* type = context.input_type(i)) context.set_output(i, DType::float64, type->shape);
}

OperandAxes batch_norm_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape) return axes;
  for (std::size_t i = 0; i < x->type.shape->size(); ++i)
    axes[0].push_back(
        {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)});
  for (std::size_t i = 1; i < axes.size(); ++i)
    axes[i] = {{.kind = AxisRole::Kind::output, .output_axis = 1}};
  return axes;
}

}  // namespace

BatchNormPlanes BatchNormPlanes::of(const Dims& dims, bool per_channel) {
  require(!dims.empty(), "expected an input of at least 1 axis, found a scalar");
  const std::int64_t rest = element_count(std::span(dims).subspan(1));
  if (!per_channel) return {dims[0], rest, 1};
  const std::int64_t channels = dims.size() > 1 ? dims[1] : 1;
  return {dims[0], channels, dims.size() > 2 ? element_count(std::span(dims).subspan(2)) : 1};
}

BatchStatistics BatchStatistics::of(ThreadPool& pool, const BatchNormPlanes& planes,
                                    const Tensor& x) {
  const auto channels = static_cast<std::size_t>(planes.channels);
  BatchStatistics found{std::vector<double>(channels), std::vector<double>(channels)};
  const auto count = static_cast<double>(planes.batch * planes.cells);
  dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const values = x.data<T>().data();
    pool.parallel_for(planes.channels, 1, [&](std::int64_t c, std::int64_t) {
      const auto sum = [&](auto&& of) {
        double total = 0;
        for (std::int64_t n = 0; n < planes.batch; ++n) {
          const T* run = values + (n * planes.channels + c) * planes.cells;
          total += run_sum(planes.cells,
                           [&](std::int64_t i) { return of(static_cast<double>(run[i])); });
        }
        return total;
      };
      const double mean = sum([](double value) { return value; }) / count;
      found.mean[static_cast<std::size_t>(c)] = mean;
      found.variance[static_cast<std::size_t>(c)] =
          sum([mean](double value) { return (value - mean) * (value - mean); }) / count;
    });
  });
  return found;
}

BatchNormAttrs BatchNormAttrs::from(const Node& node) {
  BatchNormAttrs attrs{.epsilon = get_float(node, "epsilon", 1e-5f),
                       .momentum = get_float(node, "momentum", 0.9f)};
  if (node.domain() == training_domain) {
    attrs.training = attrs.unbiased = true;
    attrs.keeps_statistics = node.output_count() > 4 && node.output(3) && node.output(4);
    return attrs;
  }
  const std::int64_t opset = node.opset();
  if (opset < 9) attrs.per_channel = get_bool(node, "spatial", true);
  if (opset >= 14)
    attrs.training = get_bool(node, "training_mode", false);
  else if (opset >= 7 || !get_bool(node, "is_test", false))
    attrs.training = node.output_count() > 1 && node.output(1) != nullptr;
  return attrs;
}

OPERATORS(batch_norm) {
  registry.add(OpDef{.name = "BatchNormalization",
                     .infer = infer_batch_norm,
                     .prepare = prepare_batch_norm,
                     .axes = batch_norm_axes});
  registry.add(OpDef{.name = "BatchNormalization",
                     .domain = std::string(training_domain),
                     .infer = infer_batch_norm,
                     .prepare = prepare_batch_norm});
}

}  // namespace onnxpress
