// How convolutions lie in memory for oneDNN.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/window.h"

namespace onnxpress::onednn {

inline Dims spatial_of(const Dims& dims) { return {dims.begin() + 2, dims.end()}; }

// Weights [out, in, kernel...] over memory [out, in, kernel...] or, for `transposed`, [in, out,
// kernel...]; with groups [group, out / group, in / group, kernel...].
struct WeightLayout {
  Dims dims, strides;

  WeightLayout(const Dims& weights, std::int64_t group, bool transposed) {
    const Dims kernel = spatial_of(weights);
    const std::int64_t cells = element_count(kernel);
    const std::int64_t first = weights[0] / group, second = weights[1];
    const std::int64_t inner = second * cells;
    dims = transposed ? Dims{second, first} : Dims{first, second};
    strides = transposed ? Dims{cells, inner} : Dims{inner, cells};
    if (group > 1) {
      dims.insert(dims.begin(), group);
      strides.insert(strides.begin(), first * inner);
    }
    std::int64_t stride = cells;
    for (std::int64_t size : kernel) {
      stride /= size;
      dims.push_back(size);
      strides.push_back(stride);
    }
  }
};

inline Spatial spatial(const Window& window, const Dims& pads_begin, const Dims& pads_end) {
  Spatial result{.strides = window.strides,
                 .dilations = window.dilations,
                 .pads_begin = pads_begin,
                 .pads_end = pads_end};
  for (std::int64_t& dilation : result.dilations) --dilation;
  return result;
}

// The dims in the order of memory.
inline Dims stored(Dims dims, Layout layout) {
  if (layout == Layout::channels_last) std::rotate(dims.begin() + 1, dims.begin() + 2, dims.end());
  return dims;
}

// Of the layouts that `describe(source, destination)` can be made for, the first that oneDNN has a
// fast implementation for, else the first.
template <class Describe>
auto fastest(const Describe& describe,
             std::span<const std::pair<memory::desc, memory::desc>> tried) {
  auto first = describe(tried[0].first, tried[0].second);
  const auto is_plain_loop = [](const auto& descriptor) {
    const std::string_view name = descriptor.impl_info_str();
    return name.starts_with("ref") || name.starts_with("gemm");
  };
  if (!is_plain_loop(first)) return first;
  for (const auto& [source, destination] : tried.subspan(1))
    if (auto other = describe(source, destination); !is_plain_loop(other)) return other;
  return first;
}

}  // namespace onnxpress::onednn
