#include <algorithm>
#include <numeric>

#include "graph/base/random.h"
#include "graph/kernels/sgemm.h"
#include "passes/quantize/adaround.h"

namespace onnxpress {

SampledColumns::SampledColumns(const WeightMatrix& matrix, std::int64_t most, std::int64_t expected)
    : rows_(matrix.rows),
      depth_(matrix.depth),
      share_(std::min(1.0, static_cast<double>(most) / static_cast<double>(std::max<std::int64_t>(1, expected)))),
      inputs_(static_cast<std::size_t>(matrix.groups)),
      outputs_(static_cast<std::size_t>(matrix.groups)) {}

void SampledColumns::add(const ColumnBlock& block, std::span<const float> weight) {
  std::vector<std::int64_t> taken;
  for (std::int64_t i = 0; i < block.count; ++i, ++seen_)
    if (static_cast<std::int64_t>(static_cast<double>(seen_ + 1) * share_) >
        static_cast<std::int64_t>(static_cast<double>(seen_) * share_))
      taken.push_back(i);
  const auto count = std::ssize(taken);
  if (count == 0) return;
  count_ += count;
  std::vector<float> exact(static_cast<std::size_t>(count * depth_));
  for (std::size_t group = 0; group < inputs_.size(); ++group) {
    const std::int64_t begin = static_cast<std::int64_t>(group) * block.count;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t offset = (begin + taken[static_cast<std::size_t>(i)]) * depth_;
      const float* column = block.rounded.data() + offset;
      inputs_[group].insert(inputs_[group].end(), column, column + depth_);
      std::copy_n(block.exact.data() + offset, depth_, exact.begin() + i * depth_);
    }
    std::vector<float>& outputs = outputs_[group];
    outputs.resize(outputs.size() + static_cast<std::size_t>(count * rows_));
    sgemm(count, rows_, depth_, 1, {exact.data(), depth_},
          {weight.data() + static_cast<std::int64_t>(group) * rows_ * depth_, depth_, true}, 0,
          {outputs.data() + outputs.size() - static_cast<std::size_t>(count * rows_), rows_});
  }
}

void SampledColumns::shuffle(std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count_));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  Random random(seed);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  const auto reorder = [&](std::vector<float>& values, std::int64_t width) {
    std::vector<float> sorted;
    sorted.reserve(values.size());
    for (const std::int64_t i : order)
      sorted.insert(sorted.end(), values.begin() + i * width, values.begin() + (i + 1) * width);
    values = std::move(sorted);
  };
  for (std::size_t group = 0; group < inputs_.size(); ++group) {
    reorder(inputs_[group], depth_);
    reorder(outputs_[group], rows_);
  }
}

}  // namespace onnxpress
