#include "graph/exec/arena.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace onnxpress {
namespace {

std::size_t aligned(std::size_t bytes) {
  return (bytes + arena_alignment - 1) / arena_alignment * arena_alignment;
}

}  // namespace

ArenaLayout plan_arena(std::span<const Lifetime> lifetimes) {
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });

  ArenaLayout layout;
  layout.offsets.resize(lifetimes.size());
  std::vector<std::size_t> placed;  // indices by ascending offset
  for (std::size_t index : order) {
    const Lifetime& wanted = lifetimes[index];
    const std::size_t size = aligned(wanted.bytes);
    if (size == 0) continue;
    std::size_t best = 0, best_gap = std::numeric_limits<std::size_t>::max(), end = 0;
    for (std::size_t other : placed) {
      const Lifetime& taken = lifetimes[other];
      if (taken.last < wanted.first || wanted.last < taken.first) continue;
      const std::size_t offset = layout.offsets[other];
      if (offset > end && offset - end >= size && offset - end < best_gap) {
        best = end;
        best_gap = offset - end;
      }
      end = std::max(end, offset + aligned(taken.bytes));
    }
    const std::size_t offset = best_gap == std::numeric_limits<std::size_t>::max() ? end : best;
    layout.offsets[index] = offset;
    layout.bytes = std::max(layout.bytes, offset + size);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset,
                                   [&](std::size_t value, std::size_t other) {
                                     return value < layout.offsets[other];
                                   }),
                  index);
  }
  return layout;
}

}  // namespace onnxpress
