// Matrix products for reference kernels.
#pragma once

#include <cstdint>

#include "graph/base/threads.h"

namespace onnxpress {

// A row-major matrix inside an array: `stride` elements from row to row.
template <class T>
struct MatrixView {
  T* data;
  std::int64_t stride;
  bool transposed = false;  // read as its transpose
};

// c[rows, columns] += a[rows, depth] * b[depth, columns], on the calling thread.
// T: float, double, int64, uint64 (integers wrap around).
template <class T>
void add_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, MatrixView<const T> a,
                 MatrixView<const T> b, MatrixView<T> c);

// The same in blocks of rows or columns whose sizes depend on the sizes of the matrices only.
template <class T>
void add_product(ThreadPool& pool, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                 MatrixView<const T> a, MatrixView<const T> b, MatrixView<T> c);

}  // namespace onnxpress
