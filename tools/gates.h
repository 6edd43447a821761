// Gates: limits that decide the exit status.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/exec/metrics.h"

namespace onnxpress {

// A limit and the text it was given as.
template <class T>
struct Limit {
  T value{};
  std::string text;
};

struct GateLimits {
  std::optional<Limit<double>> max_drop;           // percentage points; for losses per cent
  std::optional<Limit<double>> min_ratio;          // bytes before / bytes after
  std::optional<Limit<std::int64_t>> max_size;     // bytes, external data included
  std::optional<Limit<double>> min_agreement;      // per cent of samples with equal top-1
  std::optional<Limit<double>> max_latency_ratio;  // time after / time before
};

// What was measured; a gate's own measurement must be there when the gate is.
struct Measured {
  Metric metric = Metric::top1;
  std::optional<MetricValue> before, after;
  std::int64_t bytes_before = 0, bytes_after = 0;
  std::optional<double> agreement;  // lowest of all outputs, [0, 1]
  std::optional<double> latency_ratio;
  std::string doubt;  // why the original's outputs cannot be judged by; empty when they can
};

struct GateResult {
  std::string option;  // "--max-drop"
  std::string limit;   // "1%", as given
  double value = 0;    // in the limit's unit
  double margin = 0;   // what is to spare; negative by how much it is missed
  bool met = false;    // false also for values that are not numbers
  std::string text;    // "top1 fell by 0.20 points (99.60 % to 99.40 %), 0.80 to spare"
};

// Results in the order of GateLimits. Throws Error when a gate's measurement is missing.
std::vector<GateResult> decide_gates(const GateLimits& limits, const Measured& measured);

// The metric to judge by when none was asked for: top1 where there is one, else mse.
Metric default_metric(const Evaluation& evaluation);
// "99.40 %" for shares, "0.0163" for losses.
std::string metric_text(Metric metric, double value);

}  // namespace onnxpress
