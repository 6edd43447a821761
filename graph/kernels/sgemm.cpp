#include "graph/kernels/sgemm.h"

#include "graph/kernels/onednn.h"

namespace onnxpress {

void sgemm(std::int64_t rows, std::int64_t columns, std::int64_t depth, float alpha, MatrixView<const float> a,
           MatrixView<const float> b, float beta, MatrixView<float> c) {
  if (rows == 0 || columns == 0) return;
  const dnnl::status status = dnnl::sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', rows, columns, depth,
                                          alpha, a.data, a.stride, b.data, b.stride, beta, c.data, c.stride);
  require(status == dnnl::status::success, "oneDNN: sgemm failed (status {})", static_cast<int>(status));
}

}  // namespace onnxpress
