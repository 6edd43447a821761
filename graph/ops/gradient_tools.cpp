#include "graph/ops/gradient_tools.h"

#include <algorithm>
#include <vector>

#include "graph/ops/reduce.h"
#include "graph/ops/run_sum.h"

namespace onnxpress {
namespace {

// The reduced axes seen as those around one run of kept ones; false when there are several runs.
struct Around {
  std::int64_t outer = 1, kept = 1, inner = 1;

  bool set(const Dims& from, const Dims& to) {
    enum { before, within, behind } place = before;
    for (std::size_t axis = 0; axis < from.size(); ++axis) {
      if (from[axis] == 1) continue;
      const bool is_kept = to[axis] != 1;
      if (place == before) {
        if (is_kept) place = within;
      } else if (place == within) {
        if (!is_kept) place = behind;
      } else if (is_kept) {
        return false;
      }
      (place == before ? outer : place == within ? kept : inner) *= from[axis];
    }
    return true;
  }
};

}  // namespace

template <class T>
void sum_around(ThreadPool& pool, const T* values, std::int64_t outer, std::int64_t kept,
                std::int64_t inner, T* sums) {
  if (inner == 1) {
    constexpr std::int64_t block = 256;
    pool.parallel_for(kept, block, [=](std::int64_t begin, std::int64_t end) {
      double total[block] = {};
      for (std::int64_t o = 0; o < outer; ++o) {
        const T* row = values + o * kept;
        for (std::int64_t k = begin; k < end; ++k) total[k - begin] += static_cast<double>(row[k]);
      }
      for (std::int64_t k = begin; k < end; ++k) sums[k] = static_cast<T>(total[k - begin]);
    });
    return;
  }
  const std::int64_t block =
      std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, outer * inner));
  pool.parallel_for(kept, block, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      double total = 0;
      for (std::int64_t o = 0; o < outer; ++o) {
        const T* run = values + (o * kept + k) * inner;
        total += run_sum(inner, [run](std::int64_t i) { return run[i]; });
      }
      sums[k] = static_cast<T>(total);
    }
  });
}

template void sum_around<float>(ThreadPool&, const float*, std::int64_t, std::int64_t, std::int64_t,
                                float*);
template void sum_around<double>(ThreadPool&, const double*, std::int64_t, std::int64_t,
                                 std::int64_t, double*);

Tensor sum_to(ThreadPool& pool, const Tensor& gradient, const Dims& dims) {
  if (gradient.dims() == dims) return gradient;
  const Dims& from = gradient.dims();
  require(dims.size() <= from.size(), "{} does not broadcast to {}", to_string(dims),
          to_string(from));
  Dims padded(from.size() - dims.size(), 1);
  padded.insert(padded.end(), dims.begin(), dims.end());
  if (Around around; around.set(from, padded)) {
    Tensor sum = Tensor::uninitialized(gradient.dtype(), dims);
    dispatch_floats(gradient.dtype(), [&]<class T>(std::type_identity<T>) {
      sum_around<T>(pool, gradient.data<T>().data(), around.outer, around.kept, around.inner,
                    sum.mutable_data<T>().data());
    });
    return sum;
  }
  std::vector<std::int64_t> axes;
  for (std::size_t axis = 0; axis < from.size(); ++axis)
    if (padded[axis] == 1 && from[axis] != 1) axes.push_back(static_cast<std::int64_t>(axis));
  return reduce_sum(pool, gradient.cast(DType::float64), axes, true)
      .cast(gradient.dtype())
      .reshaped(dims);
}

void put_sum(BackwardContext& context, std::size_t index, const Tensor& gradient,
             const Dims& dims) {
  const Tensor sum = sum_to(context.pool(), gradient, dims);
  context.forward_gradient(index, sum.reshaped(context.input_dims(index)));
}

void put_sum(BackwardContext& context, std::size_t index, const Tensor& gradient) {
  put_sum(context, index, gradient, context.input_dims(index));
}

void put_zeros(BackwardContext& context, std::size_t index) {
  std::ranges::fill(context.gradient(index).mutable_bytes(), std::byte{0});
}

}  // namespace onnxpress
