// Scaled dot-product attention, which the attention operators share.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "graph/ops/infer.h"
#include "graph/ops/kernel.h"

namespace onnxpress {

// A [batch, heads, rows, width] view of an array whose innermost axis is contiguous; strides in
// elements.
template <class T>
struct HeadsView {
  T* data = nullptr;
  std::int64_t batch_stride = 0, head_stride = 0, row_stride = 0;

  T* at(std::int64_t batch, std::int64_t head, std::int64_t row) const {
    return data + batch * batch_stride + head * head_stride + row * row_stride;
  }
};

struct AttentionSizes {
  std::int64_t batch = 0, query_heads = 0, heads = 0;  // heads: of keys and values
  std::int64_t queries = 0, keys = 0;
  std::int64_t width = 0, value_width = 0;  // of one head

  // Multiply-accumulates of both products.
  std::int64_t macs() const;
};

// Queries [begin, end) of one head: what to do with their scores [end - begin, keys].
struct ScoreBlock {
  std::int64_t batch, head, begin, end;
};

enum class AttentionStage { product, capped, masked, softmax };

template <class T>
struct AttentionCall {
  AttentionSizes sizes;
  HeadsView<const T> query, key, value;
  HeadsView<T> output;
  T scale = 1;
  T softcap = 0;  // 0: none
  // Adds biases and masks; elements that take no part become -infinity. May be empty. Called from
  // several threads.
  std::function<void(const ScoreBlock&, T* scores)> mask;
  // Per query head: a score without a value, in the softmax's denominator only. May be empty.
  std::span<const T> sinks;
  // Where the scores [batch, query_heads, queries, keys] at `stage` go; nullptr: nowhere.
  T* scores = nullptr;
  AttentionStage stage = AttentionStage::product;
};

// softmax(mask(softcap * tanh(scale * Q K' / softcap))) V. Query head h reads head
// h / (query_heads / heads) of keys and values. Rows whose scores are all -infinity are zero.
template <class T>
void attend(ThreadPool& pool, const AttentionCall<T>& call);

// Views of a contiguous tensor, [batch, heads, rows, width] or [batch, rows, heads * width].
template <class T>
HeadsView<const T> heads_first(const Tensor& tensor);
template <class T>
HeadsView<const T> rows_first(const Tensor& tensor, std::int64_t heads);

// [batch, heads, past + rows, width] of a cache [batch, heads, past, width] (nullptr: empty) and
// new rows in either form. Throws Error when they do not fit.
Tensor append_to_cache(const Tensor* past, const Tensor& rows, std::int64_t heads);
// A [batch, rows, heads * width] tensor in the order [batch, heads, rows, width].
Tensor split_heads(const Tensor& rows, std::int64_t heads);

// Adds the elements of `bias`, which broadcasts to [batch, heads, queries, keys], to the scores.
// The mask must be of T. `keys` may be smaller than the scores' last axis: columns beyond it are
// left.
template <class T>
void add_bias(const ScoreBlock& block, const Tensor& bias, std::int64_t keys, std::int64_t columns,
              T* scores);

// `hidden` / `heads` where both are known. Throws Error when it does not divide.
std::int64_t head_width(std::int64_t hidden, std::int64_t heads);

}  // namespace onnxpress
