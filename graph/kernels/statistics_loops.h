// Loops that summarize values, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstdint>

namespace onnxpress {

// Of the finite ones among some values; without any, min is +infinity and max -infinity. A zero has
// no sign here.
struct FiniteRange {
  float min = 0, max = 0;
  std::int64_t nonfinite = 0;  // NaN and infinities
};
FiniteRange finite_range_loop(const float* values, std::int64_t count);

// Bins [i * width, (i + 1) * width) for i in [first, first + count of bins).
struct BinGrid {
  float bins_per_unit = 1;  // 1 / width, a power of two
  std::int32_t first = 0;
};
// counts[bin - first] += 1 for every finite value other than zero, all of which must lie in the
// bins of `counts` (fewer than 2^24 from zero on either side). Returns the number of zeros. `spare`
// has the size of `counts` and takes a part of the increments: neighbours that fall into one bin
// would else wait for each other.
std::int64_t histogram_loop(const float* values, std::int64_t count, const BinGrid& grid,
                            std::uint32_t* counts, std::uint32_t* spare);

}  // namespace onnxpress
