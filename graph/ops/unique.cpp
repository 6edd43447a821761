// Unique.
#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <string>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// The parts that are compared: slices along an axis, or elements of the flattened tensor.
struct Parts {
  std::int64_t outer = 1, count = 0, inner = 1;
};

// Which part is which: parts in the order of the output, the first of each kind.
struct Groups {
  std::vector<std::int64_t> first, of_part, counts;
};

// Total orders: negative, 0, positive. NaN is one value above all numbers.
template <class T>
int compare(const T& a, const T& b) {
  if constexpr (std::is_floating_point_v<T>)
    if (std::isnan(a) || std::isnan(b)) return int{std::isnan(a)} - int{std::isnan(b)};
  return a < b ? -1 : b < a ? 1 : 0;
}

// `data` holds the parts as [outer, count, inner].
template <class T>
Groups group(const T* data, const Parts& parts, bool sorted) {
  const auto order_of = [&](std::int64_t a, std::int64_t b) {
    for (std::int64_t o = 0; o < parts.outer; ++o) {
      const T* row = data + o * parts.count * parts.inner;
      for (std::int64_t i = 0; i < parts.inner; ++i)
        if (const int order = compare(row[a * parts.inner + i], row[b * parts.inner + i]))
          return order;
    }
    return 0;
  };
  std::vector<std::int64_t> order(static_cast<std::size_t>(parts.count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return order_of(a, b) < 0; });
  std::vector<std::int64_t> found;              // the first part of each kind, ascending
  std::vector<std::size_t> kind(order.size());  // by part
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || order_of(order[i - 1], order[i]) != 0) found.push_back(order[i]);
    kind[static_cast<std::size_t>(order[i])] = found.size() - 1;
  }
  std::vector<std::size_t> place(found.size());  // in the output, by kind
  std::iota(place.begin(), place.end(), std::size_t{0});
  if (!sorted) {
    std::vector<std::size_t> kinds = place;
    std::ranges::sort(kinds, {}, [&](std::size_t k) { return found[k]; });
    for (std::size_t i = 0; i < kinds.size(); ++i) place[kinds[i]] = i;
  }
  Groups groups;
  groups.first.resize(found.size());
  groups.counts.resize(found.size(), 0);
  for (std::size_t k = 0; k < found.size(); ++k) groups.first[place[k]] = found[k];
  for (const std::size_t k : kind) {
    groups.of_part.push_back(static_cast<std::int64_t>(place[k]));
    ++groups.counts[place[k]];
  }
  return groups;
}

Groups group(const Tensor& x, Parts parts, bool sorted) {
  if (x.dtype() == DType::string) return group(x.strings().data(), parts, sorted);
  if (is_complex(x.dtype())) {  // by real part, then imaginary part
    parts.inner *= 2;
    if (x.dtype() == DType::complex64)
      return group(reinterpret_cast<const float*>(x.aligned_bytes()), parts, sorted);
    return group(reinterpret_cast<const double*>(x.aligned_bytes()), parts, sorted);
  }
  const Tensor keys = x.cast(float_compute_type(x.dtype()));
  Groups groups;
  dispatch<float, double, std::int8_t, std::int16_t, std::int32_t, std::int64_t, std::uint8_t,
           std::uint16_t, std::uint32_t, std::uint64_t, bool>(
      keys.dtype(), [&]<class T>(std::type_identity<T>) {
        groups = group(keys.data<T>().data(), parts, sorted);
      });
  return groups;
}

void put_list(KernelContext& context, std::size_t index, const std::vector<std::int64_t>& list) {
  if (!context.wants_output(index)) return;
  Tensor& out = context.output(index, DType::int64, {static_cast<std::int64_t>(list.size())});
  std::ranges::copy(list, out.mutable_data<std::int64_t>().begin());
}

Kernel prepare_unique(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [given = find_int(node, "axis"),
          sorted = get_bool(node, "sorted", true)](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    Parts parts{.count = x.size()};
    std::size_t axis = 0;
    Dims dims{0};
    if (given) {
      axis = static_cast<std::size_t>(normalize_axis(*given, x.rank()));
      dims = x.dims();
      parts = {.outer = element_count(std::span(dims).first(axis)),
               .count = x.dim(axis),
               .inner = element_count(std::span(dims).subspan(axis + 1))};
    }
    const Groups groups = group(x, parts, sorted);
    const auto count = static_cast<std::int64_t>(groups.first.size());
    dims[axis] = count;
    ElementSink sink(context, 0, x.dtype(), dims);
    for (std::int64_t o = 0; o < parts.outer; ++o)
      for (std::int64_t u = 0; u < count; ++u)
        sink.put((o * count + u) * parts.inner, x,
                 (o * parts.count + groups.first[static_cast<std::size_t>(u)]) * parts.inner,
                 parts.inner);
    sink.finish();
    put_list(context, 1, groups.first);
    put_list(context, 2, groups.of_part);
    put_list(context, 3, groups.counts);
  };
}

void infer_unique(InferContext& context) {
  const auto axis = find_int(context.node(), "axis");
  std::optional<Shape> shape;
  Dim parts;
  if (!axis) shape = Shape{Dim()};
  if (const Shape* x = context.input_shape(0)) {
    if (axis) {
      shape = *x;
      Dim& dim = (*shape)[static_cast<std::size_t>(normalize_axis(*axis, x->size()))];
      parts = dim;
      dim = Dim();
    } else {
      parts = product(*x);
    }
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
  context.set_output(1, DType::int64, Shape{Dim()});
  context.set_output(2, DType::int64, Shape{parts});
  context.set_output(3, DType::int64, Shape{Dim()});
}

}  // namespace

OPERATORS(unique) {
  registry.add(
      OpDef{.name = "Unique", .since = 11, .infer = infer_unique, .prepare = prepare_unique});
}

}  // namespace onnxpress
