// ReduceSum and its family: axes as attribute or, from opset 18 (ReduceSum: 13), as input.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ops/call.h"
#include "graph/ops/registry.h"

namespace onnxpress {

struct ReduceAttrs {
  // Nothing when they are an input whose contents are not constant. Empty: all axes (or none, with
  // noop_with_empty_axes).
  std::optional<std::vector<std::int64_t>> axes;
  bool keepdims = true;
  bool noop_with_empty_axes = false;

  static ReduceAttrs from(const Node& node);
  // The axes for a given rank, non-negative and sorted.
  static std::vector<std::int64_t> effective(const std::vector<std::int64_t>& axes, bool noop,
                                             std::size_t rank);
};

// Dims (or a shape) without the sorted `axes`, or with 1 in their place.
template <class D>
std::vector<D> reduced_dims(const std::vector<D>& dims, const std::vector<std::int64_t>& axes,
                            bool keepdims) {
  std::vector<D> result;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (!std::ranges::binary_search(axes, static_cast<std::int64_t>(i)))
      result.push_back(dims[i]);
    else if (keepdims)
      result.push_back(1);
  }
  return result;
}

// Axis roles of the operand whose sorted `axes` are reduced.
std::vector<AxisRole> reduced_roles(std::size_t rank, const std::vector<std::int64_t>& axes,
                                    bool keepdims);

// The sums of a float64 tensor over the sorted `axes`.
Tensor reduce_sum(ThreadPool& pool, const Tensor& x, const std::vector<std::int64_t>& axes,
                  bool keepdims);

// "ReduceMean" and so on over `axes` in the form of `opset`.
OpCall make_reduce(std::string op_type, std::int64_t opset, std::vector<std::int64_t> axes,
                   bool keepdims);

}  // namespace onnxpress
