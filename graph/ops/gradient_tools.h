// What the gradient rows of several families share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "graph/ops/broadcasting.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/gradient.h"
#include "graph/ops/registry.h"

namespace onnxpress {

// The gradient of an operand of `dims` that was broadcast, from that of what it was broadcast to:
// summed over the axes it was stretched along. Shares storage when it was not. float32 or float64.
Tensor sum_to(ThreadPool& pool, const Tensor& gradient, const Dims& dims);
// The same as the gradient of input `index`, which was read as if it had `dims`.
void put_sum(BackwardContext& context, std::size_t index, const Tensor& gradient, const Dims& dims);
void put_sum(BackwardContext& context, std::size_t index, const Tensor& gradient);

// Sums over the axes around the middle one of a [outer, kept, inner] array.
template <class T>
void sum_around(ThreadPool& pool, const T* values, std::int64_t outer, std::int64_t kept,
                std::int64_t inner, T* sums);

// Zeros for an input that the outputs do not follow (roundings, comparisons).
void put_zeros(BackwardContext& context, std::size_t index);

// Bits of the inputs whose number is in the list.
template <class... Indices>
constexpr std::uint64_t bits_of(Indices... indices) {
  return ((std::uint64_t{1} << indices) | ... | std::uint64_t{0});
}

// Of a product of inputs 0 and 1: each gradient reads the other factor.
constexpr std::uint64_t other_factor(std::uint64_t wanted) {
  return (wanted & 1) << 1 | (wanted >> 1 & 1) | ~bits_of(0, 1);
}

// An operand seen as if it had `dims` (which hold as many elements), to be broadcast.
struct BroadcastOperand {
  BroadcastOperand(const Tensor& of) : tensor(of), dims(of.dims()) {}  // NOLINT: as it is
  BroadcastOperand(const Tensor& of, Dims as) : tensor(of), dims(std::move(as)) {}

  const Tensor& tensor;
  Dims dims;
};

// fn(a, b, c) by element, as a tensor of `dims` and the operands' type: float32 or float64.
template <class Fn>
Tensor combined(ThreadPool& pool, const Dims& dims, const BroadcastOperand& a,
                const BroadcastOperand& b, const BroadcastOperand& c, Fn fn) {
  Tensor result = Tensor::uninitialized(a.tensor.dtype(), dims);
  const Dims operands[] = {a.dims, b.dims, c.dims};
  const BroadcastPlan plan(dims, operands);
  dispatch_floats(a.tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const first = a.tensor.data<T>().data();
    const T* const second = b.tensor.data<T>().data();
    const T* const third = c.tensor.data<T>().data();
    T* const target = result.mutable_data<T>().data();
    const std::int64_t x_step = plan.inner_stride(0), y_step = plan.inner_stride(1),
                       z_step = plan.inner_stride(2);
    plan.run(pool, [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
      const T* const x = first + offsets[0];
      const T* const y = second + offsets[1];
      const T* const z = third + offsets[2];
      T* const out = target + start;
      if (x_step == 1 && y_step == 1 && z_step == 1)
        for (std::int64_t i = 0; i < count; ++i) out[i] = fn(x[i], y[i], z[i]);
      else
        for (std::int64_t i = 0; i < count; ++i)
          out[i] = fn(x[i * x_step], y[i * y_step], z[i * z_step]);
    });
  });
  return result;
}

// out[i] = fn(i) for elements [0, count), in parallel.
template <class Fn>
void for_elements(ThreadPool& pool, std::int64_t count, Fn&& fn) {
  pool.parallel_for(count, 16384, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) fn(i);
  });
}

}  // namespace onnxpress
