#include "tools/latency.h"

#include <algorithm>
#include <chrono>

#include "graph/exec/engine.h"
#include "tools/data/data.h"

namespace onnxpress {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Latency measure_latency(const Model& before, const Model& after, const std::vector<Tensor>& inputs,
                        int threads) {
  constexpr std::size_t least = 5, most = 51;
  constexpr double budget = 3.0;
  Engine first(before, {.threads = threads}), second(after, {.threads = threads});
  const auto time = [&](Engine& engine) {
    const Clock::time_point start = Clock::now();
    engine.run(inputs);
    return seconds_since(start);
  };
  for (int warm_up = 0; warm_up < 2; ++warm_up) {
    time(first);
    time(second);
  }
  std::vector<double> before_times, after_times, ratios;
  const Clock::time_point start = Clock::now();
  while (ratios.size() < least || (ratios.size() < most && seconds_since(start) < budget)) {
    // The order alternates, so that neither model always finds the other's leftovers in the caches.
    const bool swapped = ratios.size() % 2 == 1;
    const double one = time(swapped ? second : first), two = time(swapped ? first : second);
    before_times.push_back(swapped ? two : one);
    after_times.push_back(swapped ? one : two);
    ratios.push_back(after_times.back() / std::max(before_times.back(), 1e-9));
  }
  return {.before = median(before_times),
          .after = median(after_times),
          .ratio = median(ratios),
          .runs = static_cast<int>(ratios.size()),
          .rows = leading_count(inputs)};
}

}  // namespace onnxpress
