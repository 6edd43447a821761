#include "graph/kernels/statistics_loops.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/statistics_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using Integers = hn::Rebind<std::int32_t, Lanes>;

FiniteRange finite_range(const float* values, std::int64_t count) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto highest = hn::Set(d, std::numeric_limits<float>::infinity());
  const auto lowest = hn::Neg(highest);
  // Two of each: a chain of minima waits for itself.
  auto min_a = highest, min_b = highest, max_a = lowest, max_b = lowest;
  std::int64_t finite = 0;
  const auto take = [&](hn::Vec<Lanes> x, auto& min, auto& max) {
    const auto is_finite = hn::IsFinite(x);
    finite += static_cast<std::int64_t>(hn::CountTrue(d, is_finite));
    min = hn::Min(min, hn::IfThenElse(is_finite, x, highest));
    max = hn::Max(max, hn::IfThenElse(is_finite, x, lowest));
  };
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    take(hn::LoadU(d, values + i), min_a, max_a);
    take(hn::LoadU(d, values + i + lanes), min_b, max_b);
  }
  FiniteRange range{.min = hn::GetLane(hn::MinOfLanes(d, hn::Min(min_a, min_b))),
                    .max = hn::GetLane(hn::MaxOfLanes(d, hn::Max(max_a, max_b)))};
  for (; i < count; ++i) {
    const float x = values[i];
    if (!(x - x == 0.0F)) continue;
    ++finite;
    range.min = std::min(range.min, x);
    range.max = std::max(range.max, x);
  }
  range.nonfinite = count - finite;
  range.min += 0.0F;
  range.max += 0.0F;
  return range;
}

std::int64_t histogram(const float* values, std::int64_t count, const BinGrid& grid,
                       std::uint32_t* counts, std::uint32_t* spare) {
  constexpr std::int64_t block = 1024;
  const Lanes d;
  const Integers di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto zero = hn::Zero(d);
  const auto scale = hn::Set(d, grid.bins_per_unit);
  const auto first = hn::Set(di, grid.first);
  const auto minus_one = hn::Set(di, -1);
  HWY_ALIGN std::int32_t bins[block + HWY_MAX_BYTES / sizeof(std::int32_t)];
  HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)] = {};
  std::int64_t zeros = 0;
  for (std::int64_t begin = 0; begin < count; begin += block) {
    const std::int64_t end = std::min(begin + block, count);
    std::size_t found = 0;
    const auto take = [&](hn::Vec<Lanes> x) {
      const auto is_zero = hn::Eq(x, zero);
      zeros += static_cast<std::int64_t>(hn::CountTrue(d, is_zero));
      const auto is_counted = hn::AndNot(is_zero, hn::IsFinite(x));
      // Negative numbers too small for the product to hold belong below zero.
      const auto bin = hn::ConvertTo(di, hn::Floor(hn::Mul(x, scale)));
      const auto is_negative = hn::RebindMask(di, hn::Lt(x, zero));
      const auto kept = hn::IfThenElse(is_negative, hn::Min(bin, minus_one), bin);
      found += hn::CompressStore(hn::Sub(kept, first), hn::RebindMask(di, is_counted), di,
                                 bins + found);
    };
    std::int64_t i = begin;
    for (; i + lanes <= end; i += lanes) take(hn::LoadU(d, values + i));
    if (i < end) {
      std::fill_n(rest, lanes, 0.0F);
      std::copy_n(values + i, end - i, rest);
      take(hn::LoadU(d, rest));
      zeros -= lanes - (end - i);
    }
    std::size_t k = 0;
    for (; k + 4 <= found; k += 4) {
      ++counts[bins[k]];
      ++spare[bins[k + 1]];
      ++counts[bins[k + 2]];
      ++spare[bins[k + 3]];
    }
    for (; k < found; ++k) ++counts[bins[k]];
  }
  return zeros;
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(finite_range);
HWY_EXPORT(histogram);

}  // namespace

FiniteRange finite_range_loop(const float* values, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(finite_range)(values, count);
}

std::int64_t histogram_loop(const float* values, std::int64_t count, const BinGrid& grid,
                            std::uint32_t* counts, std::uint32_t* spare) {
  return HWY_DYNAMIC_DISPATCH(histogram)(values, count, grid, counts, spare);
}

}  // namespace onnxpress
#endif  // HWY_ONCE
