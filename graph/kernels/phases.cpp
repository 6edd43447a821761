#include "graph/kernels/phases.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace onnxpress {
namespace {

using Body = std::function<void(std::int64_t phase, std::int64_t chunk)>;

class Phases {
 public:
  Phases(std::int64_t participants, std::int64_t phases, std::int64_t chunks, const Body& body)
      : participants_(participants),
        phases_(phases),
        next_(static_cast<std::size_t>(chunks)),
        body_(body) {}

  void take_part(std::int64_t participant) {
    const auto chunks = static_cast<std::int64_t>(next_.size());
    const std::int64_t first = participant * chunks / participants_;
    for (std::int64_t phase = 0; phase < phases_; ++phase) {
      for (std::int64_t i = 0; i < chunks; ++i) {
        const std::int64_t chunk = (first + i) % chunks;
        if (!claim(chunk, phase)) continue;
        body_(phase, chunk);
        done_.fetch_add(1, std::memory_order_acq_rel);
      }
      wait_for((phase + 1) * chunks);
    }
  }

 private:
  // A cache line each.
  struct alignas(64) Counter {
    std::atomic<std::int64_t> value{0};
  };

  bool claim(std::int64_t chunk, std::int64_t phase) {
    std::atomic<std::int64_t>& next = next_[static_cast<std::size_t>(chunk)].value;
    std::int64_t expected = phase;
    return next.load(std::memory_order_relaxed) == phase &&
           next.compare_exchange_strong(expected, phase + 1, std::memory_order_acq_rel);
  }

  // All chunks are claimed, so others are computing what is missing.
  void wait_for(std::int64_t total) const {
    constexpr int spins = 4096;
    for (int i = 0; done_.load(std::memory_order_acquire) < total; ++i)
      if (i < spins)
        hwy::Pause();
      else
        std::this_thread::yield();
  }

  const std::int64_t participants_, phases_;
  std::vector<Counter> next_;  // phase that has yet to be computed, by chunk
  const Body& body_;
  alignas(64) std::atomic<std::int64_t> done_{0};
};

}  // namespace

void run_phases(ThreadPool& pool, std::int64_t participants, std::int64_t phases,
                std::int64_t chunks, const Body& body) {
  if (participants <= 1 || chunks <= 1) {
    for (std::int64_t phase = 0; phase < phases; ++phase)
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(phase, chunk);
    return;
  }
  Phases work(participants, phases, chunks, body);
  pool.parallel_for(participants, 1,
                    [&](std::int64_t participant, std::int64_t) { work.take_part(participant); });
}

}  // namespace onnxpress
