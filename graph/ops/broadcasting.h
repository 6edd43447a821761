// Iteration over broadcast operands.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ops/registry.h"

namespace onnxpress {

// Row-major strides of `dims`, in elements.
std::vector<std::int64_t> row_strides(const Dims& dims);
// Strides of an operand of `dims` seen as `target` (0 along broadcast axes). `dims` must broadcast
// to `target`.
std::vector<std::int64_t> broadcast_strides(const Dims& dims, const Dims& target);

// An elementwise operation cut into pieces of one contiguous run of the output; adjacent axes along
// which every operand moves alike are one axis.
class BroadcastPlan {
 public:
  BroadcastPlan(const Dims& output, std::span<const Dims> operands);

  // 0 (the same element throughout a piece) or 1.
  std::int64_t inner_stride(std::size_t operand) const { return strides_[operand].back(); }
  // body(output offset, offsets of the operands, count) for every piece, in parallel.
  using Body = std::function<void(std::int64_t, const std::int64_t*, std::int64_t)>;
  void run(ThreadPool& pool, const Body& body) const;

 private:
  std::vector<std::int64_t> dims_;                  // at least one
  std::vector<std::vector<std::int64_t>> strides_;  // by operand
};

// Dims of the second operand as operators before opset 7 align them (attributes `broadcast` and
// `axis`): 1s appended after the axes it covers. Unchanged for later opsets.
Dims legacy_broadcast_dims(const Node& node, std::size_t first_rank, Dims second);

// Axis roles of operators that broadcast all inputs.
OperandAxes broadcast_axes(const Node& node);

}  // namespace onnxpress
