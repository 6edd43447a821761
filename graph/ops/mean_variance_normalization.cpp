// MeanVarianceNormalization.
#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr double epsilon = 1e-9;  // added to the standard deviation, as the function body has it

std::vector<std::int64_t> axes_of(const Node& node, std::size_t rank) {
  return normalize_axes(get_ints(node, "axes", {0, 2, 3}), rank);
}

Kernel prepare_mean_variance(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      Dims kept = x.dims();
      for (const std::int64_t axis : axes_of(node, x.rank()))
        kept[static_cast<std::size_t>(axis)] = 1;
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      if (y.size() == 0) return;
      const auto groups = static_cast<std::size_t>(element_count(kept));
      const double count = static_cast<double>(x.size()) / static_cast<double>(groups);
      const Dims operands[] = {kept};
      const BroadcastPlan plan(x.dims(), operands);
      const std::int64_t step = plan.inner_stride(0);
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        // Calls body(element's offset, its group) in order.
        const auto for_each = [&](ThreadPool& pool, auto&& body) {
          plan.run(pool, [&](std::int64_t start, const std::int64_t* offsets, std::int64_t size) {
            for (std::int64_t i = 0; i < size; ++i)
              body(start + i, static_cast<std::size_t>(offsets[0] + i * step));
          });
        };
        ThreadPool serial(1);
        std::vector<double> means(groups, 0);
        std::vector<double> deviations(groups, 0);
        for_each(serial, [&](std::int64_t at, std::size_t group) {
          means[group] += static_cast<double>(in[at]);
        });
        for (double& mean : means) mean /= count;
        for_each(serial, [&](std::int64_t at, std::size_t group) {
          const double difference = static_cast<double>(in[at]) - means[group];
          deviations[group] += difference * difference;
        });
        for (double& deviation : deviations) deviation = std::sqrt(deviation / count) + epsilon;
        for_each(inner.pool(), [&](std::int64_t at, std::size_t group) {
          out[at] =
              static_cast<T>((static_cast<double>(in[at]) - means[group]) / deviations[group]);
        });
      });
    });
  };
}

void infer_mean_variance(InferContext& context) {
  if (const Shape* x = context.input_shape(0)) axes_of(context.node(), x->size());
  infer_same_as_first(context);
}

OperandAxes mean_variance_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape) return roles;
  const std::size_t rank = x->type.shape->size();
  const auto axes = axes_of(node, rank);
  for (std::size_t i = 0; i < rank; ++i) {
    const auto axis = static_cast<std::int64_t>(i);
    roles[0].push_back(std::ranges::binary_search(axes, axis)
                           ? AxisRole{}
                           : AxisRole{.kind = AxisRole::Kind::output, .output_axis = axis});
  }
  return roles;
}

}  // namespace

OPERATORS(mean_variance_normalization) {
  registry.add(OpDef{.name = "MeanVarianceNormalization",
                     .since = 9,
                     .infer = infer_mean_variance,
                     .prepare = prepare_mean_variance,
                     .axes = mean_variance_axes});
}

}  // namespace onnxpress
