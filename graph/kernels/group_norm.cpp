// InstanceNormalization and GroupNormalization of float32 images and their gradients: a group's sums are
// taken while it is brought into the cache that its elements are then computed in.
#include "graph/ops/group_norm.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "graph/kernels/normalization_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

// Shorter runs are not worth a loop of their own.
constexpr std::int64_t least_cells = 8;

// [batch, channels, cells]; groups of `members` channels, `shared` of which have one scale.
struct Groups {
  std::int64_t batch, channels, cells, groups, members, shared;
  double epsilon;

  Groups(const GroupNormAttrs& attrs, const Dims& x, std::int64_t scales)
      : batch(x[0]),
        channels(x[1]),
        cells(element_count(std::span(x).subspan(2))),
        groups(attrs.groups == 0 ? channels : attrs.groups),
        members(channels / groups),
        shared(channels / scales),
        epsilon(static_cast<double>(attrs.epsilon)) {}

  std::int64_t tasks() const { return batch * groups; }
  // Of a task: its first element, the parameter of its member `m`.
  std::int64_t start(std::int64_t task) const { return task * members * cells; }
  std::int64_t parameter(std::int64_t task, std::int64_t m) const { return (task % groups * members + m) / shared; }
  Planes all() const { return {.planes = 1, .stride = 0, .cells = members * cells}; }
  Planes channel() const { return {.planes = 1, .stride = 0, .cells = cells}; }

  // Mean, and the inverse of the deviation.
  std::pair<double, double> statistics(const float* x) const {
    const auto first = static_cast<double>(*x), count = static_cast<double>(members * cells);
    const SumAndSquares found = plane_moments(x, all(), first);
    const double away = found.sum / count;
    return {first + away, 1 / std::sqrt(std::max(0.0, found.squares / count - away * away) + epsilon)};
  }
};

bool supports(const PrepareContext& context) {
  if (!is_float_operand(context.input_type(0)) || !is_float_operand(context.input_type(1)) || !is_float_operand(context.input_type(2)))
    return false;
  const Dims x = dims_of(context.input_type(0)), scale = dims_of(context.input_type(1));
  if (x.size() < 3 || element_count(x) == 0 || scale.size() != 1 || dims_of(context.input_type(2)) != scale) return false;
  const std::int64_t groups = GroupNormAttrs::from(context.node()).groups;
  const bool is_instance = context.node().is("InstanceNormalization");
  const bool fits = is_instance ? scale[0] == x[1]
                                : groups > 0 && x[1] % groups == 0 && (scale[0] == x[1] || scale[0] == groups);
  return fits && element_count(std::span(x).subspan(2)) >= least_cells;
}

const float* floats(const Tensor& tensor) { return tensor.data<float>().data(); }

Kernel prepare(const PrepareContext& prepared) {
  return [attrs = GroupNormAttrs::from(prepared.node())](KernelContext& context) {
    const Tensor &x = context.required_input(0), &scale = context.required_input(1);
    const Groups of(attrs, x.dims(), scale.size());
    const float *const in = floats(x), *const a = floats(scale), *const b = floats(context.required_input(2));
    float* const out = context.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    context.pool().parallel_for(of.tasks(), 1, [&](std::int64_t task, std::int64_t) {
      const auto [mean, inverse] = of.statistics(in + of.start(task));
      for (std::int64_t m = 0; m < of.members; ++m) {
        const std::int64_t at = of.start(task) + m * of.cells, p = of.parameter(task, m);
        const double factor = static_cast<double>(a[p]) * inverse;
        plane_affine(in + at, out + at, of.channel(), static_cast<float>(factor), static_cast<float>(static_cast<double>(b[p]) - mean * factor));
      }
    });
  };
}

// With h = dy * scale and n elements in a group: dx = (h - mean(h) - (x - mean) inverse^2 mean(h (x - mean))) inverse.
BackwardKernel prepare_gradient(const PrepareContext& prepared) {
  return [attrs = GroupNormAttrs::from(prepared.node())](BackwardContext& context) {
    const Tensor &x = context.required_input(0), &scale = context.required_input(1);
    const Groups of(attrs, x.dims(), scale.size());
    const float *const in = floats(x), *const dy = floats(context.required_gradient(0)), *const a = floats(scale);
    float* const dx = context.wants_gradient(0) ? context.gradient(0).mutable_data<float>().data() : nullptr;
    // By sample and channel: sums of dy, and of dy times the normalized values.
    std::vector<GradientSums> sums(static_cast<std::size_t>(of.batch * of.channels));
    context.pool().parallel_for(of.tasks(), 1, [&](std::int64_t task, std::int64_t) {
      const std::int64_t first = of.start(task);
      const auto [mean, inverse] = of.statistics(in + first);
      GradientSums* const own = sums.data() + task * of.members;
      double total = 0, product = 0;
      for (std::int64_t m = 0; m < of.members; ++m) {
        own[m] = plane_gradients(dy + first + m * of.cells, in + first + m * of.cells, of.channel(), mean);
        const auto factor = static_cast<double>(a[of.parameter(task, m)]);
        total += factor * own[m].gradient;
        product += factor * own[m].product;
        own[m].product *= inverse;
      }
      if (dx == nullptr) return;
      const auto count = static_cast<double>(of.members * of.cells);
      const double tilt = inverse * inverse * inverse * product / count, shift = inverse * total / count;
      for (std::int64_t m = 0; m < of.members; ++m) {
        const std::int64_t at = first + m * of.cells;
        const double slope = static_cast<double>(a[of.parameter(task, m)]) * inverse;
        plane_combine(dy + at, in + at, dx + at, of.channel(), static_cast<float>(slope), static_cast<float>(-tilt),
                      static_cast<float>(tilt * mean - shift));
      }
    });
    for (const std::size_t index : {std::size_t{1}, std::size_t{2}}) {
      if (!context.wants_gradient(index)) continue;
      const auto target = context.gradient(index).mutable_data<float>();
      for (std::int64_t p = 0; p < std::ssize(target); ++p) {
        double sum = 0;
        for (std::int64_t i = 0; i < of.batch; ++i)
          for (std::int64_t c = p * of.shared; c < (p + 1) * of.shared; ++c) {
            const GradientSums& found = sums[static_cast<std::size_t>(i * of.channels + c)];
            sum += index == 1 ? found.product : found.gradient;
          }
        target[static_cast<std::size_t>(p)] = static_cast<float>(sum);
      }
    }
  };
}

}  // namespace

OPERATORS(group_norm_rows) {
  for (const char* name : {"InstanceNormalization", "GroupNormalization"}) {
    registry.add(KernelDef{.name = name, .backend = "vector", .supports = supports, .prepare = prepare});
    registry.add(GradientDef{.name = name,
                             .backend = "vector",
                             .supports = supports,
                             .prepare = prepare_gradient,
                             .reads_inputs = bits_of(0, 1),
                             .reads_outputs = 0});
  }
}

}  // namespace onnxpress
