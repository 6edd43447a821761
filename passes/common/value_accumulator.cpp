#include "passes/common/value_accumulator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/kernels/statistics_loops.h"

namespace onnxpress {
namespace {

constexpr std::int64_t block = 1 << 16;      // elements that one worker takes at once
constexpr std::size_t few = 64;              // elements that are quicker counted one by one
constexpr std::size_t countable = 1u << 31;  // elements before a 32-bit counter might overflow

FiniteRange join(const FiniteRange& a, const FiniteRange& b) {
  return {std::min(a.min, b.min), std::max(a.max, b.max), a.nonfinite + b.nonfinite};
}

FiniteRange range_of(std::span<const float> values, ThreadPool& pool) {
  const auto count = static_cast<std::int64_t>(values.size());
  if (count <= block) return finite_range_loop(values.data(), count);
  std::vector<FiniteRange> parts(static_cast<std::size_t>((count + block - 1) / block));
  pool.parallel_for(count, block, [&](std::int64_t begin, std::int64_t end) {
    parts[static_cast<std::size_t>(begin / block)] = finite_range_loop(values.data() + begin, end - begin);
  });
  FiniteRange range = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) range = join(range, parts[i]);
  return range;
}

// A tensor seen as [outer, channels, inner].
struct ChannelView {
  std::int64_t outer = 1, channels = 1, inner = 1;

  ChannelView(const Dims& dims, std::size_t axis) {
    for (std::size_t i = 0; i < dims.size(); ++i)
      (i < axis ? outer : i == axis ? channels : inner) *= dims[i];
  }
};

// What one channel holds in one tensor.
struct ChannelPart {
  float min = std::numeric_limits<float>::infinity(), max = -std::numeric_limits<float>::infinity();
  double sum = 0;
  std::int64_t count = 0;

  void add(float value) {
    if (!std::isfinite(value)) return;
    min = std::min(min, value);
    max = std::max(max, value);
    sum += value;
    ++count;
  }
};

// Channels [begin, end), each summed in the order of memory.
void fold_part(const float* values, const ChannelView& view, std::int64_t begin, std::int64_t end,
               std::span<ChannelPart> parts) {
  for (std::int64_t o = 0; o < view.outer; ++o)
    for (std::int64_t c = begin; c < end; ++c) {
      const float* row = values + (o * view.channels + c) * view.inner;
      ChannelPart& part = parts[static_cast<std::size_t>(c)];
      for (std::int64_t i = 0; i < view.inner; ++i) part.add(row[i]);
    }
}

}  // namespace

ValueAccumulator::ValueAccumulator(bool with_histogram, std::optional<std::int64_t> channel_axis)
    : with_histogram_(with_histogram) {
  statistics_.channel_axis = channel_axis;
}

void ValueAccumulator::observe(const Tensor& tensor, ThreadPool& pool, HistogramScratch& scratch) {
  if (!is_float(tensor.dtype())) return;
  ++observations_;
  if (tensor.size() == 0) return;
  const Tensor floats = tensor.cast(DType::float32);
  fold(floats.data<float>(), pool, scratch);
  const auto axis = statistics_.channel_axis;
  if (axis && static_cast<std::size_t>(*axis) < tensor.rank()) fold_channels(floats, pool);
}

void ValueAccumulator::fold(std::span<const float> values, ThreadPool& pool, HistogramScratch& scratch) {
  const FiniteRange range = range_of(values, pool);
  statistics_.nonfinite += range.nonfinite;
  const std::int64_t finite = static_cast<std::int64_t>(values.size()) - range.nonfinite;
  if (finite == 0) return;
  const bool is_first = statistics_.count == 0;
  statistics_.count += finite;
  statistics_.min = is_first ? range.min : std::min(statistics_.min, range.min);
  statistics_.max = is_first ? range.max : std::max(statistics_.max, range.max);
  average(range.min, range.max);
  if (!with_histogram_) return;
  statistics_.histogram.cover(range.min, range.max);
  for (std::size_t begin = 0; begin < values.size(); begin += countable)
    count(values.subspan(begin, std::min(countable, values.size() - begin)), pool, scratch);
}

void ValueAccumulator::count(std::span<const float> values, ThreadPool& pool, HistogramScratch& scratch) {
  Histogram& histogram = statistics_.histogram;
  if (values.size() <= few) {
    for (const float x : values) {
      if (!std::isfinite(x)) continue;
      statistics_.zeros += x == 0.0F;
      histogram.add(x);
    }
    return;
  }
  const std::size_t bins = histogram.counts.size();
  const BinGrid grid{.bins_per_unit = std::ldexp(1.0F, -histogram.exponent),
                     .first = static_cast<std::int32_t>(histogram.first)};
  std::vector<std::int64_t> zeros(scratch.counts.size());
  for (std::vector<std::uint32_t>& counts : scratch.counts) counts.assign(2 * bins, 0);
  const auto count_block = [&](std::size_t worker, std::int64_t begin, std::int64_t end) {
    std::uint32_t* counts = scratch.counts[worker].data();
    zeros[worker] += histogram_loop(values.data() + begin, end - begin, grid, counts, counts + bins);
  };
  const auto count = static_cast<std::int64_t>(values.size());
  if (count <= block)
    count_block(0, 0, count);
  else
    pool.parallel_for(count, block, [&](std::int64_t begin, std::int64_t end) {
      count_block(static_cast<std::size_t>(ThreadPool::worker_index()), begin, end);
    });
  for (std::size_t worker = 0; worker < scratch.counts.size(); ++worker) {
    const std::vector<std::uint32_t>& counts = scratch.counts[worker];
    for (std::size_t i = 0; i < bins; ++i) histogram.counts[i] += std::int64_t{counts[i]} + counts[bins + i];
    statistics_.zeros += zeros[worker];
    histogram.counts[static_cast<std::size_t>(-histogram.first)] += zeros[worker];
  }
}

void ValueAccumulator::fold_channels(const Tensor& tensor, ThreadPool& pool) {
  const ChannelView view(tensor.dims(), static_cast<std::size_t>(*statistics_.channel_axis));
  const auto channels = static_cast<std::size_t>(view.channels);
  std::vector<ChannelPart> parts(channels);
  const float* values = tensor.data<float>().data();
  const std::int64_t size = std::max<std::int64_t>(view.outer * view.inner, 1);
  const std::int64_t group = std::max<std::int64_t>(block / size, 1);
  pool.parallel_for(view.channels, group, [&](std::int64_t begin, std::int64_t end) {
    fold_part(values, view, begin, end, parts);
  });
  if (channel_sums_.size() < channels) {
    channel_sums_.resize(channels);
    channel_counts_.resize(channels);
    statistics_.channel_min.resize(channels, 0);
    statistics_.channel_max.resize(channels, 0);
  }
  for (std::size_t c = 0; c < channels; ++c) {
    const ChannelPart& part = parts[c];
    if (part.count == 0) continue;
    float& min = statistics_.channel_min[c];
    float& max = statistics_.channel_max[c];
    const bool is_first = channel_counts_[c] == 0;
    min = (is_first ? part.min : std::min(min, part.min)) + 0.0F;
    max = (is_first ? part.max : std::max(max, part.max)) + 0.0F;
    channel_sums_[c].add(part.sum);
    channel_counts_[c] += part.count;
  }
}

void ValueAccumulator::average(float low, float high) {
  constexpr double weight = 0.01;
  const double share = std::max(weight, 1.0 / static_cast<double>(++averaged_));
  const auto move = [&](float& average, float next) {
    average = static_cast<float>(average + share * (double{next} - average));
  };
  move(statistics_.ema_min, low);
  move(statistics_.ema_max, high);
}

ValueStatistics ValueAccumulator::finish() const {
  ValueStatistics statistics = statistics_;
  for (std::size_t c = 0; c < channel_sums_.size(); ++c)
    statistics.channel_mean.push_back(
        channel_counts_[c] == 0 ? 0.0 : channel_sums_[c].value() / static_cast<double>(channel_counts_[c]));
  return statistics;
}

}  // namespace onnxpress
