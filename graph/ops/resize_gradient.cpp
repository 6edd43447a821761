// Gradient of Resize and Upsample: along each axis, every input element gets back what it gave.
#include <algorithm>
#include <span>
#include <vector>

#include "graph/ops/gradient_tools.h"
#include "graph/ops/resize.h"

namespace onnxpress {
namespace {

// The gradient along one axis: [outer, outputs, inner] to [outer, size, inner].
template <class T>
std::vector<T> spread_axis(ThreadPool& pool, const std::vector<T>& g, std::int64_t outer,
                           std::int64_t size, std::int64_t inner, const AxisTaps& axis) {
  const std::int64_t outputs = static_cast<std::int64_t>(axis.indices.size()) / axis.taps;
  std::vector<T> result(static_cast<std::size_t>(outer * size * inner), T(0));
  std::vector<bool> is_outside(static_cast<std::size_t>(outputs), false);
  for (const std::int64_t i : axis.outside) is_outside[static_cast<std::size_t>(i)] = true;
  pool.parallel_for(outer, 1, [&](std::int64_t o, std::int64_t) {
    for (std::int64_t i = 0; i < outputs; ++i) {
      if (is_outside[static_cast<std::size_t>(i)]) continue;
      const T* const from = g.data() + (o * outputs + i) * inner;
      for (std::int64_t k = i * axis.taps; k < (i + 1) * axis.taps; ++k) {
        const auto tap = static_cast<std::size_t>(k);
        const T weight = axis.weights.empty() ? T(1) : static_cast<T>(axis.weights[tap]);
        T* const to = result.data() + (o * size + axis.indices[tap]) * inner;
        for (std::int64_t j = 0; j < inner; ++j) to[j] += weight * from[j];
      }
    }
  });
  return result;
}

BackwardKernel prepare_resize(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Dims& dims = context.input_dims(0);
    Tensor& dx = context.gradient(0);
    if (dx.size() == 0) return;
    const std::vector<AxisTaps> taps =
        resize_taps(node, dims, [&](std::size_t index) { return context.input(index); });
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const auto given = dy.data<T>();
      std::vector<T> current(given.begin(), given.end());
      Dims shape = dy.dims();
      for (auto axis = taps.rbegin(); axis != taps.rend(); ++axis) {
        const std::span<const std::int64_t> all = shape;
        current = spread_axis(context.pool(), current, element_count(all.first(axis->axis)),
                              dims[axis->axis], element_count(all.subspan(axis->axis + 1)), *axis);
        shape[axis->axis] = dims[axis->axis];
      }
      std::ranges::copy(current, dx.mutable_data<T>().begin());
    });
  };
}

}  // namespace

OPERATORS(resize_gradient) {
  for (const char* op : {"Resize", "Upsample"})
    registry.add(GradientDef{.name = op,
                             .prepare = prepare_resize,
                             .reads_inputs = ~bits_of(0),
                             .reads_outputs = 0});
}

}  // namespace onnxpress
