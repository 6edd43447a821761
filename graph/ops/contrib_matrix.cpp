// Inverse, Trilu and CDist of com.microsoft.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Gauss-Jordan elimination with row pivots; a singular matrix gives infinities and NaN.
template <class T>
void invert(std::int64_t size, const T* in, T* out) {
  const std::int64_t width = 2 * size;
  std::vector<T> work(static_cast<std::size_t>(size * width));
  const auto row = [&](std::int64_t i) { return work.begin() + i * width; };
  for (std::int64_t i = 0; i < size; ++i) {
    std::copy_n(in + i * size, size, row(i));
    row(i)[size + i] = 1;
  }
  for (std::int64_t k = 0; k < size; ++k) {
    std::int64_t pivot = k;
    for (std::int64_t i = k + 1; i < size; ++i)
      if (std::fabs(row(i)[k]) > std::fabs(row(pivot)[k])) pivot = i;
    if (pivot != k) std::swap_ranges(row(k), row(k) + width, row(pivot));
    const T divisor = row(k)[k];
    for (std::int64_t j = 0; j < width; ++j) row(k)[j] /= divisor;
    for (std::int64_t i = 0; i < size; ++i) {
      const T factor = row(i)[k];
      if (i == k || factor == 0) continue;
      for (std::int64_t j = k; j < width; ++j) row(i)[j] -= factor * row(k)[j];
    }
  }
  for (std::int64_t i = 0; i < size; ++i) std::copy_n(row(i) + size, size, out + i * size);
}

void check_square(const Shape& shape) {
  require(shape.size() >= 2, "expected at least 2 axes, found {}", to_string(shape));
  unify(shape[shape.size() - 1], shape[shape.size() - 2], "the sides of a square matrix");
}

Kernel prepare_inverse(const PrepareContext&) {
  return [](KernelContext& context) {
    run_as(context, float_compute_type, [](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      check_square(to_shape(x.dims()));
      const std::int64_t size = x.dims().back();
      const std::int64_t count = element_count(std::span(x.dims()).first(x.rank() - 2));
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const in = x.data<T>().data();
        T* const out = y.mutable_data<T>().data();
        inner.pool().parallel_for(count, 1, [=](std::int64_t i, std::int64_t) {
          invert(size, in + i * size * size, out + i * size * size);
        });
      });
    });
  };
}

void infer_inverse(InferContext& context) {
  if (const Shape* x = context.input_shape(0)) check_square(*x);
  infer_same_as_first(context);
}

// Elements on one side of diagonal k; the others are zero.
Kernel prepare_trilu(const PrepareContext& prepare) {
  return [upper = get_bool(prepare.node(), "upper", true)](KernelContext& context) {
    const Tensor* given = context.input(1);
    require(given == nullptr || given->size() == 1, "expected one diagonal, found {}",
            given == nullptr ? "" : to_string(given->dims()));
    const std::int64_t diagonal = given != nullptr ? given->to_ints().front() : 0;
    const Tensor& x = context.required_input(0);
    require(x.rank() >= 2 && x.dtype() != DType::string && !is_sub_byte(x.dtype()),
            "expected numbers of at least 2 axes, found {}{}", name(x.dtype()),
            to_string(x.dims()));
    const std::int64_t rows = x.dim(x.rank() - 2), columns = x.dims().back();
    Tensor& y = context.output(0, x.dtype(), x.dims());
    std::ranges::copy(x.bytes(), y.mutable_bytes().begin());
    if (x.size() == 0) return;
    const auto width = static_cast<std::int64_t>(x.byte_size()) / x.size();
    std::byte* row = y.mutable_bytes().data();
    // Far diagonals are as good as those just outside.
    const std::int64_t k = std::clamp(diagonal, -rows, columns);
    for (std::int64_t i = 0; i < x.size() / columns; ++i, row += columns * width) {
      const std::int64_t split =
          std::clamp<std::int64_t>(i % rows + k + (upper ? 0 : 1), 0, columns);
      if (upper)
        std::memset(row, 0, static_cast<std::size_t>(split * width));
      else
        std::memset(row + split * width, 0, static_cast<std::size_t>((columns - split) * width));
    }
  };
}

// Distances between the rows of A [M,N] and B [K,N].
Kernel prepare_cdist(const PrepareContext& prepare) {
  const std::string metric = get_string(prepare.node(), "metric", "sqeuclidean");
  require(metric == "sqeuclidean" || metric == "euclidean",
          "attribute 'metric': expected sqeuclidean or euclidean, found '{}'", metric);
  return [root = metric == "euclidean"](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& a = inner.required_input(0);
      const Tensor& b = inner.required_input(1);
      require(a.rank() == 2 && b.rank() == 2 && a.dim(1) == b.dim(1),
              "expected matrices with as many columns, found {} and {}", to_string(a.dims()),
              to_string(b.dims()));
      const std::int64_t width = a.dim(1), columns = b.dim(0);
      Tensor& y = inner.output(0, a.dtype(), {a.dim(0), columns});
      dispatch_floats(a.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const left = a.data<T>().data();
        const T* const right = b.data<T>().data();
        T* const out = y.mutable_data<T>().data();
        inner.pool().parallel_for(a.dim(0), 1, [=](std::int64_t i, std::int64_t) {
          for (std::int64_t j = 0; j < columns; ++j) {
            double sum = 0;
            for (std::int64_t k = 0; k < width; ++k) {
              const double difference = left[i * width + k] - right[j * width + k];
              sum += difference * difference;
            }
            out[i * columns + j] = static_cast<T>(root ? std::sqrt(sum) : sum);
          }
        });
      });
    });
  };
}

void infer_cdist(InferContext& context) {
  Shape shape(2);
  for (std::size_t i = 0; i < 2; ++i)
    if (const Shape* rows = context.input_shape(i)) {
      require(rows->size() == 2, "expected a matrix, found {}", to_string(*rows));
      shape[i] = rows->front();
    }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

Cost cdist_cost(const PrepareContext& context) {
  const Dims a = concrete(*context.input_type(0)->shape).value();
  const Dims b = concrete(*context.input_type(1)->shape).value();
  return {.macs = element_count(a) * b.at(0)};
}

}  // namespace

OPERATORS(contrib_matrix) {
  registry.add(OpDef{.name = "Inverse",
                     .domain = "com.microsoft",
                     .infer = infer_inverse,
                     .prepare = prepare_inverse});
  registry.add(OpDef{.name = "Trilu",
                     .domain = "com.microsoft",
                     .infer = infer_same_as_first,
                     .prepare = prepare_trilu});
  registry.add(OpDef{.name = "CDist",
                     .domain = "com.microsoft",
                     .infer = infer_cdist,
                     .prepare = prepare_cdist,
                     .cost = cdist_cost});
}

}  // namespace onnxpress
