#include "graph/ops/attention_core.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "graph/ops/broadcasting.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"

namespace onnxpress {
namespace {

// Softmax of one row in place, with a further score in the denominator where `sink` is given.
template <class T>
void softmax_row(T* row, std::int64_t size, const T* sink) {
  constexpr T none = -std::numeric_limits<T>::infinity();
  T largest = sink != nullptr ? *sink : none;
  for (std::int64_t i = 0; i < size; ++i)
    if (row[i] > largest || std::isnan(row[i])) largest = row[i];
  if (largest == none) {
    std::fill_n(row, size, T(0));
    return;
  }
  double sum = sink != nullptr ? std::exp(*sink - largest) : T(0);
  for (std::int64_t i = 0; i < size; ++i) {
    row[i] = std::exp(row[i] - largest);
    sum += row[i];
  }
  const T factor = static_cast<T>(1 / sum);
  for (std::int64_t i = 0; i < size; ++i) row[i] *= factor;
}

template <class T>
void attend_block(const AttentionCall<T>& call, const ScoreBlock& block, T* scores) {
  const AttentionSizes& size = call.sizes;
  const std::int64_t rows = block.end - block.begin;
  const std::int64_t count = rows * size.keys;
  const std::int64_t shared = block.head / (size.query_heads / size.heads);
  std::fill_n(scores, count, T(0));
  add_product<T>(rows, size.keys, size.width,
                 {call.query.at(block.batch, block.head, block.begin), call.query.row_stride},
                 {call.key.at(block.batch, shared, 0), call.key.row_stride, true},
                 {scores, size.keys});
  const auto put = [&](AttentionStage stage) {
    if (call.scores == nullptr || call.stage != stage) return;
    const std::int64_t head = block.batch * size.query_heads + block.head;
    std::copy_n(scores, count, call.scores + (head * size.queries + block.begin) * size.keys);
  };
  for (std::int64_t i = 0; i < count; ++i) scores[i] *= call.scale;
  put(AttentionStage::product);
  if (call.softcap > 0)
    for (std::int64_t i = 0; i < count; ++i)
      scores[i] = call.softcap * std::tanh(scores[i] / call.softcap);
  put(AttentionStage::capped);
  if (call.mask) call.mask(block, scores);
  put(AttentionStage::masked);
  const T* sink = call.sinks.empty() ? nullptr : &call.sinks[static_cast<std::size_t>(block.head)];
  for (std::int64_t i = 0; i < rows; ++i) softmax_row(scores + i * size.keys, size.keys, sink);
  put(AttentionStage::softmax);
  for (std::int64_t i = 0; i < rows; ++i)
    std::fill_n(call.output.at(block.batch, block.head, block.begin + i), size.value_width, T(0));
  add_product<T>(rows, size.value_width, size.keys, {scores, size.keys},
                 {call.value.at(block.batch, shared, 0), call.value.row_stride},
                 {call.output.at(block.batch, block.head, block.begin), call.output.row_stride});
}

// Copies rows [batch, heads, count, width] into a [batch, heads, total, width] array at row `at`.
template <class T>
void put_rows(HeadsView<const T> from, const Dims& target, std::int64_t at, std::int64_t count,
              T* out) {
  for (std::int64_t b = 0; b < target[0]; ++b)
    for (std::int64_t h = 0; h < target[1]; ++h)
      for (std::int64_t row = 0; row < count; ++row)
        std::copy_n(from.at(b, h, row), target[3],
                    out + ((b * target[1] + h) * target[2] + at + row) * target[3]);
}

}  // namespace

std::int64_t AttentionSizes::macs() const {
  return element_count(std::array{batch, query_heads, queries, keys}) * (width + value_width);
}

template <class T>
void attend(ThreadPool& pool, const AttentionCall<T>& call) {
  const AttentionSizes& size = call.sizes;
  require(size.heads > 0 && size.query_heads % size.heads == 0,
          "expected query heads divisible by {} heads of keys, found {}", size.heads,
          size.query_heads);
  const std::int64_t step =
      std::clamp<std::int64_t>((1 << 18) / std::max<std::int64_t>(1, size.keys), 16, 256);
  const std::int64_t blocks = (size.queries + step - 1) / step;
  pool.parallel_for(
      size.batch * size.query_heads * blocks, 1, [&](std::int64_t task, std::int64_t) {
        const std::int64_t head = task / blocks;
        const std::int64_t begin = task % blocks * step;
        const ScoreBlock block{head / size.query_heads, head % size.query_heads, begin,
                               std::min(size.queries, begin + step)};
        std::vector<T> scores(static_cast<std::size_t>((block.end - begin) * size.keys));
        attend_block(call, block, scores.data());
      });
}

template <class T>
HeadsView<const T> heads_first(const Tensor& tensor) {
  const std::vector<std::int64_t> strides = row_strides(tensor.dims());
  return {tensor.data<T>().data(), strides[0], strides[1], strides[2]};
}

template <class T>
HeadsView<const T> rows_first(const Tensor& tensor, std::int64_t heads) {
  const std::vector<std::int64_t> strides = row_strides(tensor.dims());
  return {tensor.data<T>().data(), strides[0], head_width(tensor.dim(2), heads), strides[1]};
}

Tensor append_to_cache(const Tensor* past, const Tensor& rows, std::int64_t heads) {
  const bool packed = rows.rank() == 3;
  Dims dims = rows.dims();
  if (packed) dims = {dims[0], heads, dims[1], head_width(dims[2], heads)};
  if (!packed && past == nullptr) return rows;
  const std::int64_t added = dims[2];
  std::int64_t before = 0;
  if (past != nullptr) {
    require(past->rank() == 4, "expected a past state of 4 axes, found {}",
            to_string(past->dims()));
    before = past->dim(2);
    dims[2] = before;
    require(past->dims() == dims && past->dtype() == rows.dtype(),
            "expected a past state {}{}, found {}{}", name(rows.dtype()), to_string(dims),
            name(past->dtype()), to_string(past->dims()));
    dims[2] += added;
  }
  Tensor result = Tensor::uninitialized(rows.dtype(), dims);
  dispatch_floats(rows.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const out = result.mutable_data<T>().data();
    if (past != nullptr) put_rows<T>(heads_first<T>(*past), dims, 0, before, out);
    put_rows<T>(packed ? rows_first<T>(rows, heads) : heads_first<T>(rows), dims, before, added,
                out);
  });
  return result;
}

Tensor split_heads(const Tensor& rows, std::int64_t heads) {
  return append_to_cache(nullptr, rows, heads);
}

template <class T>
void add_bias(const ScoreBlock& block, const Tensor& bias, std::int64_t keys, std::int64_t columns,
              T* scores) {
  Dims dims = bias.dims();
  dims.insert(dims.begin(), 4 - dims.size(), 1);
  const std::vector<std::int64_t> strides = row_strides(dims);
  const auto step = [&](std::size_t axis) { return dims[axis] == 1 ? 0 : strides[axis]; };
  const T* const start = bias.data<T>().data() + block.batch * step(0) + block.head * step(1);
  for (std::int64_t query = block.begin; query < block.end; ++query, scores += columns) {
    const T* const row = start + query * step(2);
    for (std::int64_t key = 0; key < keys; ++key) scores[key] += row[key * step(3)];
  }
}

std::int64_t head_width(std::int64_t hidden, std::int64_t heads) {
  require(heads > 0 && hidden % heads == 0, "expected a size divisible by {} heads, found {}",
          heads, hidden);
  return hidden / heads;
}

#define ONNXPRESS_INSTANTIATE(T)                                          \
  template void attend<T>(ThreadPool&, const AttentionCall<T>&);          \
  template HeadsView<const T> heads_first<T>(const Tensor&);              \
  template HeadsView<const T> rows_first<T>(const Tensor&, std::int64_t); \
  template void add_bias<T>(const ScoreBlock&, const Tensor&, std::int64_t, std::int64_t, T*);
ONNXPRESS_INSTANTIATE(float)
ONNXPRESS_INSTANTIATE(double)
#undef ONNXPRESS_INSTANTIATE

}  // namespace onnxpress
