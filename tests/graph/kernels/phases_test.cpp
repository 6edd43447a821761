#include "graph/kernels/phases.h"

#include <doctest/doctest.h>

#include <atomic>
#include <vector>

namespace onnxpress {
namespace {

TEST_CASE("every chunk of every phase is run once, behind the whole phase before it") {
  constexpr std::int64_t phases = 200;
  for (const int threads : {1, 2, 5})
    for (const std::int64_t chunks : {1, 2, 7}) {
      ThreadPool pool(threads);
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(phases * chunks));
      std::vector<std::atomic<std::int64_t>> complete(static_cast<std::size_t>(phases));
      std::atomic<int> early{0};
      run_phases(pool, threads, phases, chunks, [&](std::int64_t phase, std::int64_t chunk) {
        if (phase > 0 && complete[static_cast<std::size_t>(phase - 1)] != chunks) ++early;
        ++runs[static_cast<std::size_t>(phase * chunks + chunk)];
        ++complete[static_cast<std::size_t>(phase)];
      });
      CHECK(early == 0);
      for (const std::atomic<int>& count : runs) CHECK(count == 1);
    }
}

TEST_CASE("phases complete inside a pool that has no thread to spare") {
  ThreadPool pool(2);
  std::atomic<int> runs{0};
  pool.parallel_for(2, 1, [&](std::int64_t, std::int64_t) {
    run_phases(pool, 2, 50, 4, [&](std::int64_t, std::int64_t) { ++runs; });
  });
  CHECK(runs == 2 * 50 * 4);
}

}  // namespace
}  // namespace onnxpress
