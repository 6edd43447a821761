#include "graph/ops/resample.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"

namespace onnxpress {
namespace {

constexpr std::int64_t piece = 16384;  // elements a task handles

// Adjacent axes read as one: those that stay are merged.
struct Group {
  std::int64_t size;            // in the output
  std::int64_t stride;          // in the input
  const std::int64_t* indices;  // nullptr: stays
  std::int64_t taps;
};

// At least one, the last being contiguous.
std::vector<Group> groups_of(const Dims& in, const Dims& out, std::span<const AxisTaps> axes) {
  std::vector<Group> groups;
  std::int64_t stride = 1;
  for (std::size_t axis = in.size(); axis-- > 0; stride *= in[axis]) {
    const auto found = std::ranges::find(axes, axis, &AxisTaps::axis);
    if (found != axes.end())
      groups.push_back({out[axis], stride, found->indices.data(), found->taps});
    else if (!groups.empty() && groups.back().indices == nullptr)
      groups.back().size *= out[axis];
    else
      groups.push_back({out[axis], stride, nullptr, 1});
  }
  if (groups.empty()) groups.push_back({1, 1, nullptr, 1});
  std::ranges::reverse(groups);
  return groups;
}

template <class T>
void fill_outside(T* out, const Dims& dims, std::span<const AxisTaps> axes, const T& value) {
  for (const AxisTaps& axis : axes) {
    const std::span<const std::int64_t> all = dims;
    const std::int64_t outer = element_count(all.first(axis.axis));
    const std::int64_t inner = element_count(all.subspan(axis.axis + 1));
    for (std::int64_t o = 0; o < outer; ++o)
      for (const std::int64_t i : axis.outside)
        std::fill_n(out + (o * dims[axis.axis] + i) * inner, inner, value);
  }
}

template <class T>
void pick(ThreadPool& pool, const T* in, const std::vector<Group>& groups, T* out) {
  const Group inner = groups.back();
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < groups.size(); ++i) rows *= groups[i].size;
  const std::int64_t block = std::max<std::int64_t>(1, piece / inner.size);
  pool.parallel_for(rows, block, [&](std::int64_t begin, std::int64_t end) {
    const T* previous = nullptr;
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t rest = row;
      const T* source = in;
      for (std::size_t i = groups.size() - 1; i-- > 0; rest /= groups[i].size) {
        const Group& group = groups[i];
        const std::int64_t at = rest % group.size;
        source += (group.indices == nullptr ? at : group.indices[at * group.taps]) * group.stride;
      }
      T* target = out + row * inner.size;
      if (source == previous)
        std::copy(target - inner.size, target, target);
      else if (inner.indices == nullptr)
        std::copy(source, source + inner.size, target);
      else
        for (std::int64_t i = 0; i < inner.size; ++i)
          target[i] = source[inner.indices[i * inner.taps]];
      previous = source;
    }
  });
}

// An axis with weights of the type computed in.
template <class T>
struct Filter {
  std::int64_t outputs, taps;
  const std::int64_t* indices;
  std::vector<T> weights;

  explicit Filter(const AxisTaps& axis)
      : outputs(static_cast<std::int64_t>(axis.indices.size()) / axis.taps),
        taps(axis.taps),
        indices(axis.indices.data()),
        weights(axis.weights.begin(), axis.weights.end()) {}
};

// Along a contiguous axis.
template <class T>
void filter_row(const Filter<T>& filter, const T* in, T* out) {
  const std::int64_t* index = filter.indices;
  const T* weight = filter.weights.data();
  if (filter.taps == 2) {
    for (std::int64_t i = 0; i < filter.outputs; ++i, index += 2, weight += 2)
      out[i] = weight[0] * in[index[0]] + weight[1] * in[index[1]];
    return;
  }
  for (std::int64_t i = 0; i < filter.outputs; ++i) {
    T sum = 0;
    for (std::int64_t k = 0; k < filter.taps; ++k) sum += *weight++ * in[*index++];
    out[i] = sum;
  }
}

// Output index `at` of an axis whose elements are rows of `width`; row(index) is one of the input.
template <class T, class Row>
void filter_rows(const Filter<T>& filter, std::int64_t at, std::int64_t width, Row&& row, T* out) {
  const std::int64_t* index = filter.indices + at * filter.taps;
  const T* weight = filter.weights.data() + at * filter.taps;
  if (filter.taps == 2) {
    const T* a = row(index[0]);
    const T* b = row(index[1]);
    const T u = weight[0];
    const T v = weight[1];
    for (std::int64_t i = 0; i < width; ++i) out[i] = u * a[i] + v * b[i];
    return;
  }
  std::fill_n(out, width, T(0));
  for (std::int64_t k = 0; k < filter.taps; ++k) {
    const T* from = row(index[k]);
    for (std::int64_t i = 0; i < width; ++i) out[i] += weight[k] * from[i];
  }
}

// in [outer, size, inner] to out [outer, outputs, inner].
template <class T>
void filter_axis(ThreadPool& pool, const T* in, std::int64_t outer, std::int64_t size,
                 std::int64_t inner, const AxisTaps& axis, T* out) {
  const Filter<T> filter(axis);
  const std::int64_t run = inner == 1 ? filter.outputs : inner;
  const std::int64_t rows = outer * filter.outputs * inner / run;
  const std::int64_t block = std::max<std::int64_t>(1, piece / run);
  pool.parallel_for(rows, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      if (inner == 1) {
        filter_row(filter, in + row * size, out + row * run);
        continue;
      }
      const T* base = in + row / filter.outputs * size * inner;
      filter_rows(
          filter, row % filter.outputs, inner,
          [&](std::int64_t index) { return base + index * inner; }, out + row * inner);
    }
  });
}

// Both axes of in [planes, height, width] at once: rows filtered along the width are kept while the
// window along the height still covers them.
template <class T>
void filter_planes(ThreadPool& pool, const T* in, std::int64_t planes, std::int64_t height,
                   std::int64_t width, const AxisTaps& y_axis, const AxisTaps& x_axis, T* out) {
  const Filter<T> y(y_axis);
  const Filter<T> x(x_axis);
  const std::int64_t block =
      std::max<std::int64_t>(16, piece / std::max<std::int64_t>(1, x.outputs));
  const std::int64_t pieces = (y.outputs + block - 1) / block;
  // The indices of one window are neighbours, so they differ modulo the number of slots.
  const std::int64_t slots = std::min(y.taps, height);
  pool.parallel_for(planes * pieces, 1, [&](std::int64_t task, std::int64_t) {
    const T* plane = in + task / pieces * height * width;
    T* target = out + task / pieces * y.outputs * x.outputs;
    std::vector<T> rows(static_cast<std::size_t>(slots * x.outputs));
    std::vector<std::int64_t> held(static_cast<std::size_t>(slots), -1);
    const auto row = [&](std::int64_t index) -> const T* {
      const std::int64_t slot = index % slots;
      T* kept = rows.data() + slot * x.outputs;
      if (std::int64_t& holds = held[static_cast<std::size_t>(slot)]; holds != index) {
        filter_row(x, plane + index * width, kept);
        holds = index;
      }
      return kept;
    };
    const std::int64_t first = task % pieces * block;
    for (std::int64_t i = first; i < std::min(y.outputs, first + block); ++i)
      filter_rows(y, i, x.outputs, row, target + i * x.outputs);
  });
}

}  // namespace

DType interpolation_type(DType type) {
  if (is_integer(type)) return bits(type) <= 16 ? DType::float32 : DType::float64;
  return float_compute_type(type);
}

double cubic_weight(double distance, double a) {
  const double d = std::fabs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

void pick_along(KernelContext& context, const Tensor& x, std::span<const AxisTaps> axes,
                const Dims& dims, const Tensor& fill) {
  if (x.dtype() == DType::string) {
    std::vector<std::string> strings(static_cast<std::size_t>(element_count(dims)));
    if (!strings.empty()) {
      pick(context.pool(), x.strings().data(), groups_of(x.dims(), dims, axes), strings.data());
      fill_outside(strings.data(), dims, axes, std::string());
    }
    return context.forward_output(0, Tensor::of_strings(dims, std::move(strings)));
  }
  Tensor& y = context.output(0, x.dtype(), dims);
  if (y.size() == 0) return;
  const bool any_outside =
      std::ranges::any_of(axes, [](const AxisTaps& axis) { return !axis.outside.empty(); });
  dispatch_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* out = reinterpret_cast<T*>(y.mutable_bytes().data());
    pick(context.pool(), reinterpret_cast<const T*>(x.aligned_bytes()),
         groups_of(x.dims(), dims, axes), out);
    if (any_outside)
      fill_outside(out, dims, axes, *reinterpret_cast<const T*>(fill.aligned_bytes()));
  });
}

void interpolate_along(ThreadPool& pool, const Tensor& x, std::span<const AxisTaps> axes,
                       double fill, Tensor& y) {
  if (y.size() == 0) return;
  dispatch_floats(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Tensor current = x;
    for (std::span<const AxisTaps> rest = axes; !rest.empty();) {
      const std::size_t axis = rest[0].axis;
      const bool planes = rest.size() == 2 && rest[1].axis == axis + 1 && axis + 2 == x.rank();
      const std::size_t taken = planes ? 2 : 1;
      const bool last = rest.size() == taken;
      const Dims dims = current.dims();
      const std::span<const std::int64_t> from = dims;
      const std::int64_t outer = element_count(from.first(axis));
      Dims target = dims;
      for (const AxisTaps& one : rest.first(taken)) target[one.axis] = y.dim(one.axis);
      Tensor between = last ? Tensor() : Tensor::uninitialized(x.dtype(), target);
      T* out = (last ? y : between).template mutable_data<T>().data();
      const T* in = current.template data<T>().data();
      if (planes)
        filter_planes(pool, in, outer, dims[axis], dims[axis + 1], rest[0], rest[1], out);
      else
        filter_axis(pool, in, outer, dims[axis], element_count(from.subspan(axis + 1)), rest[0],
                    out);
      current = std::move(between);
      rest = rest.subspan(taken);
    }
    fill_outside(y.mutable_data<T>().data(), y.dims(), axes, static_cast<T>(fill));
  });
}

}  // namespace onnxpress
