// The matrix product of oneDNN, without its headers.
#pragma once

#include <cstdint>

#include "graph/ops/matrix_product.h"

namespace onnxpress {

// c[rows, columns] = beta * c + alpha * a[rows, depth] * b[depth, columns]; c is not transposed.
// Runs on the calling thread inside ThreadPool::parallel_for or after set_onednn_threads(1), and
// gives the same bits there every time. Throws Error when oneDNN does.
void sgemm(std::int64_t rows, std::int64_t columns, std::int64_t depth, float alpha, MatrixView<const float> a,
           MatrixView<const float> b, float beta, MatrixView<float> c);

}  // namespace onnxpress
