// Where planned values live in one block of memory.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace onnxpress {

// A buffer needed from step `first` to step `last`, both inclusive.
struct Lifetime {
  std::size_t bytes = 0;
  std::size_t first = 0;
  std::size_t last = 0;
};

struct ArenaLayout {
  std::vector<std::size_t> offsets;  // of each lifetime, multiples of `arena_alignment`
  std::size_t bytes = 0;             // of the whole block
};

inline constexpr std::size_t arena_alignment = 64;

// Offsets such that buffers alive at the same step never overlap. Greedy by size: the largest
// first, each into the smallest gap that holds it (Pisarchyk and Lee 2020, "Efficient Memory
// Management for Deep Neural Net Inference", algorithm "greedy by size").
ArenaLayout plan_arena(std::span<const Lifetime> lifetimes);

}  // namespace onnxpress
