// A weight's elements as float32, a piece at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

// Of a piece: whole bytes in every packed type, and small enough for a core's cache.
inline constexpr std::int64_t piece_elements = 16384;

// pool->parallel_for, or the same on the calling thread when `pool` is nullptr.
void run_blocks(std::int64_t count, std::int64_t block, ThreadPool* pool,
                const std::function<void(std::int64_t begin, std::int64_t end)>& body);

// Elements [begin, begin + count) of any number type.
void read_floats(const Tensor& weight, std::int64_t begin, std::int64_t count, std::vector<float>& values);

// fn(values, begin, count) for all elements, in pieces of piece_elements, by all threads of the pool.
void for_each_piece(const Tensor& weight, ThreadPool* pool,
                    const std::function<void(const float* values, std::int64_t begin, std::int64_t count)>& fn);

}  // namespace onnxpress
