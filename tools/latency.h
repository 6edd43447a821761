// Time of one run of two models, measured side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

struct Latency {
  double before = 0, after = 0;  // median seconds of one run
  double ratio = 0;              // median over pairs of runs of after / before
  int runs = 0;                  // of each model
  std::int64_t rows = 0;         // samples in one run
};

// Runs both in turns in our engine, at least 5 and at most 51 times each, for about 3 seconds.
Latency measure_latency(const Model& before, const Model& after, const std::vector<Tensor>& inputs,
                        int threads);

}  // namespace onnxpress
