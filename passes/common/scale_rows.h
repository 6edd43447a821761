// Which scale belongs to which element of a weight, for loops over any part of it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "graph/ir/tensor.h"
#include "passes/common/quantization.h"

namespace onnxpress {

class ScaleRows {
 public:
  ScaleRows(const Dims& weight, const Granularity& granularity) : kind_(granularity.kind) {
    const auto axis = static_cast<std::size_t>(granularity.axis);
    for (std::size_t i = 0; i < weight.size(); ++i)
      (kind_ == Granularity::Kind::tensor || i > axis ? inner_ : i == axis ? extent_ : outer_) *= weight[i];
    if (kind_ == Granularity::Kind::block) {
      block_ = granularity.block;
      blocks_ = (extent_ + block_ - 1) / block_;
    }
  }

  // fn(scale, step, begin, count) for neighbouring elements, all of [begin, end) in memory order:
  // element begin + i has scale number scale + i * step, and step is 0 or 1.
  template <class F>
  void each(std::int64_t begin, std::int64_t end, const F& fn) const {
    while (begin < end) {
      const std::int64_t row = begin / inner_, column = begin % inner_;
      const std::int64_t outer = row / extent_, along = row % extent_;
      std::int64_t scale = 0, step = 0, count = inner_ - column;
      if (kind_ == Granularity::Kind::channel) {
        scale = along;
        if (inner_ == 1) count = extent_ - along, step = 1;
      } else if (kind_ == Granularity::Kind::block) {
        const std::int64_t block = along / block_;
        scale = (outer * blocks_ + block) * inner_ + column;
        if (inner_ == 1) count = std::min((block + 1) * block_, extent_) - along;
        else step = 1;
      }
      count = std::min(count, end - begin);
      fn(scale, step, begin, count);
      begin += count;
    }
  }

  std::int64_t outer() const { return outer_; }
  std::int64_t extent() const { return extent_; }  // of the axis
  std::int64_t inner() const { return inner_; }    // elements behind one index of the axis
  std::int64_t blocks() const { return blocks_; }

 private:
  Granularity::Kind kind_;
  std::int64_t outer_ = 1, extent_ = 1, inner_ = 1, block_ = 1, blocks_ = 1;
};

}  // namespace onnxpress
