#include "graph/exec/arena.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "graph/base/random.h"

namespace onnxpress {
namespace {

bool overlaps(const Lifetime& a, std::size_t a_offset, const Lifetime& b, std::size_t b_offset) {
  const bool together = a.first <= b.last && b.first <= a.last;
  return together && a_offset < b_offset + b.bytes && b_offset < a_offset + a.bytes;
}

TEST_CASE("buffers that are alive together never overlap") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    std::vector<Lifetime> lifetimes(1 + random.below(60));
    for (Lifetime& lifetime : lifetimes) {
      lifetime.bytes = random.below(5) == 0 ? 0 : 1 + random.below(5000);
      lifetime.first = random.below(40);
      lifetime.last = lifetime.first + random.below(8);
    }
    const ArenaLayout layout = plan_arena(lifetimes);
    std::size_t needed = 0, together = 0;
    for (std::size_t i = 0; i < lifetimes.size(); ++i) {
      CHECK(layout.offsets[i] % arena_alignment == 0);
      CHECK(layout.offsets[i] + lifetimes[i].bytes <= layout.bytes);
      needed += lifetimes[i].bytes + arena_alignment;
      for (std::size_t j = 0; j < i; ++j)
        together += overlaps(lifetimes[i], layout.offsets[i], lifetimes[j], layout.offsets[j]);
    }
    CHECK(together == 0);
    CHECK(layout.bytes <= needed);
  }
}

TEST_CASE("a chain needs the memory of its two largest neighbours") {
  const std::vector<Lifetime> chain{{640, 0, 1}, {1280, 1, 2}, {640, 2, 3}, {1280, 3, 4}};
  CHECK(plan_arena(chain).bytes == 1920);
}

TEST_CASE("a buffer goes into the smallest gap that holds it") {
  // 0-1024 and 2048-3072 are free at step 5 once the first and third are gone, as is 3072-3584.
  const std::vector<Lifetime> lifetimes{{4096, 0, 0}, {2048, 0, 9}, {1024, 1, 9}, {1024, 5, 5}};
  const ArenaLayout layout = plan_arena(lifetimes);
  CHECK(layout.bytes == 6144);
  CHECK(layout.offsets[3] != layout.offsets[2]);
}

TEST_CASE("nothing takes no memory") { CHECK(plan_arena({}).bytes == 0); }

}  // namespace
}  // namespace onnxpress
