// Batches spread over workers, results taken in order: internal to graph/exec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "graph/base/threads.h"
#include "graph/exec/dataset.h"

namespace onnxpress {

// Reads `data` from its start; calls work(worker, batch, number of the batch's first sample), at
// most one at a time for each worker in [0, threads), and then take(result) for every batch in
// order, in the calling thread.
template <class Work, class Take>
void for_each_batch(Dataset& data, int threads, const Work& work, const Take& take) {
  using Result = decltype(work(0, std::declval<const Batch&>(), std::int64_t{0}));
  const auto workers = static_cast<std::size_t>(threads);
  ThreadPool pool(threads);
  std::vector<Batch> batches(workers);
  std::vector<std::int64_t> first_samples(workers);
  std::int64_t samples = 0;
  data.rewind();
  for (bool more = true; more;) {
    std::size_t count = 0;
    while (count < workers && (more = data.next(batches[count]))) {
      first_samples[count] = samples;
      samples += batches[count++].samples;
    }
    std::vector<Result> results(count);
    pool.parallel_for(static_cast<std::int64_t>(count), 1, [&](std::int64_t begin, std::int64_t) {
      const auto i = static_cast<std::size_t>(begin);
      results[i] = work(static_cast<int>(i), std::as_const(batches[i]), first_samples[i]);
    });
    for (Result& result : results) take(std::move(result));
  }
}

}  // namespace onnxpress
