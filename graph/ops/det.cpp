// Det: determinants of the matrices in the two innermost axes.
#include <cmath>
#include <utility>

#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Gaussian elimination with partial pivoting on a row-major matrix, which is used up. 1 for size 0.
double determinant(std::vector<double>& matrix, std::size_t size) {
  double product = 1;
  for (std::size_t k = 0; k < size; ++k) {
    std::size_t pivot = k;
    for (std::size_t row = k + 1; row < size; ++row)
      if (std::abs(matrix[row * size + k]) > std::abs(matrix[pivot * size + k])) pivot = row;
    const double top = matrix[pivot * size + k];
    if (top == 0) return 0;
    if (pivot != k) {
      for (std::size_t column = k; column < size; ++column)
        std::swap(matrix[pivot * size + column], matrix[k * size + column]);
      product = -product;
    }
    product *= top;
    for (std::size_t row = k + 1; row < size; ++row) {
      const double factor = matrix[row * size + k] / top;
      for (std::size_t column = k + 1; column < size; ++column)
        matrix[row * size + column] -= factor * matrix[k * size + column];
    }
  }
  return product;
}

Kernel prepare_det(const PrepareContext&) {
  return [](KernelContext& context) {
    run_as(context, float_compute_type, [](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const std::size_t rank = x.rank();
      require(rank >= 2 && x.dim(rank - 1) == x.dim(rank - 2), "expected square matrices, found {}",
              to_string(x.dims()));
      const auto size = static_cast<std::size_t>(x.dim(rank - 1));
      Tensor& y = inner.output(0, x.dtype(), Dims(x.dims().begin(), x.dims().end() - 2));
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(y.size(), 16, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const T* first = in + static_cast<std::size_t>(i) * size * size;
            std::vector<double> matrix(first, first + size * size);
            out[i] = static_cast<T>(determinant(matrix, size));
          }
        });
      });
    });
  };
}

void infer_det(InferContext& context) {
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr) {
    require(x->size() >= 2, "expected square matrices, found {}", to_string(*x));
    unify((*x)[x->size() - 1], (*x)[x->size() - 2], "the sides of square matrices");
    shape = Shape(x->begin(), x->end() - 2);
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(det) {
  registry.add(OpDef{.name = "Det", .since = 11, .infer = infer_det, .prepare = prepare_det});
}

}  // namespace onnxpress
