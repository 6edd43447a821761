#include "graph/ops/matrix_product.h"

#include <algorithm>
#include <type_traits>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>

namespace onnxpress {
namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Mapped = Eigen::Map<const RowMajor<T>, 0, Eigen::OuterStride<>>;

template <class T>
Mapped<T> map(const MatrixView<const T>& view, std::int64_t rows, std::int64_t columns) {
  return {view.data, rows, columns, Eigen::OuterStride<>(view.stride)};
}

template <class T>
void add_real(std::int64_t rows, std::int64_t columns, std::int64_t depth, MatrixView<const T> a,
              MatrixView<const T> b, MatrixView<T> c) {
  Eigen::Map<RowMajor<T>, 0, Eigen::OuterStride<>> out(c.data, rows, columns,
                                                       Eigen::OuterStride<>(c.stride));
  if (a.transposed && b.transposed)
    out.noalias() += map<T>(a, depth, rows).transpose() * map<T>(b, columns, depth).transpose();
  else if (a.transposed)
    out.noalias() += map<T>(a, depth, rows).transpose() * map<T>(b, depth, columns);
  else if (b.transposed)
    out.noalias() += map<T>(a, rows, depth) * map<T>(b, columns, depth).transpose();
  else
    out.noalias() += map<T>(a, rows, depth) * map<T>(b, depth, columns);
}

template <class T>
void add_integer(std::int64_t rows, std::int64_t columns, std::int64_t depth, MatrixView<const T> a,
                 MatrixView<const T> b, MatrixView<T> c) {
  const std::int64_t a_row = a.transposed ? 1 : a.stride;
  const std::int64_t a_column = a.transposed ? a.stride : 1;
  const std::int64_t b_row = b.transposed ? 1 : b.stride;
  const std::int64_t b_column = b.transposed ? b.stride : 1;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t k = 0; k < depth; ++k) {
      const auto factor = static_cast<std::uint64_t>(a.data[i * a_row + k * a_column]);
      for (std::int64_t j = 0; j < columns; ++j) {
        T& sum = c.data[i * c.stride + j];
        sum = static_cast<T>(static_cast<std::uint64_t>(sum) +
                             factor * static_cast<std::uint64_t>(b.data[k * b_row + j * b_column]));
      }
    }
}

template <class T>
MatrixView<T> from_row(MatrixView<T> view, std::int64_t row) {
  view.data += view.transposed ? row : row * view.stride;
  return view;
}

template <class T>
MatrixView<T> from_column(MatrixView<T> view, std::int64_t column) {
  view.data += view.transposed ? column * view.stride : column;
  return view;
}

constexpr std::int64_t work_per_block = 1 << 20;  // multiply-accumulates

}  // namespace

template <class T>
void add_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, MatrixView<const T> a,
                 MatrixView<const T> b, MatrixView<T> c) {
  if (rows == 0 || columns == 0 || depth == 0) return;
  if constexpr (std::is_floating_point_v<T>)
    add_real(rows, columns, depth, a, b, c);
  else
    add_integer(rows, columns, depth, a, b, c);
}

template <class T>
void add_product(ThreadPool& pool, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                 MatrixView<const T> a, MatrixView<const T> b, MatrixView<T> c) {
  const bool by_rows = rows >= columns;
  const std::int64_t along = by_rows ? rows : columns;
  const std::int64_t across = std::max<std::int64_t>(1, (by_rows ? columns : rows) * depth);
  const std::int64_t block = std::max<std::int64_t>(32, (work_per_block + across - 1) / across);
  pool.parallel_for(along, block, [&](std::int64_t begin, std::int64_t end) {
    if (by_rows)
      add_product(end - begin, columns, depth, from_row(a, begin), b, from_row(c, begin));
    else
      add_product(rows, end - begin, depth, a, from_column(b, begin), from_column(c, begin));
  });
}

#define ONNXPRESS_INSTANTIATE(T)                                                              \
  template void add_product<T>(std::int64_t, std::int64_t, std::int64_t, MatrixView<const T>, \
                               MatrixView<const T>, MatrixView<T>);                           \
  template void add_product<T>(ThreadPool&, std::int64_t, std::int64_t, std::int64_t,         \
                               MatrixView<const T>, MatrixView<const T>, MatrixView<T>);
ONNXPRESS_INSTANTIATE(float)
ONNXPRESS_INSTANTIATE(double)
ONNXPRESS_INSTANTIATE(std::int64_t)
ONNXPRESS_INSTANTIATE(std::uint64_t)
#undef ONNXPRESS_INSTANTIATE

}  // namespace onnxpress
