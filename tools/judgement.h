// Two models on the same data: accuracy, output error, latency, gates. What compress and compare
// have in common.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/gates.h"
#include "tools/session.h"

namespace onnxpress {

// What a report says of two models on one set of data.
struct Judgement {
  std::optional<Evaluation> before, after;  // nothing without labels
  Metric metric = Metric::top1;
  std::vector<OutputError> errors;
  std::string errors_on;  // what data `errors` were measured on
  std::optional<Latency> latency;
};

// The first batch of a dataset, and rewinds it.
std::vector<Tensor> first_batch(Dataset& data);

// A metric that was asked for and that the labels allow; throws Error otherwise.
Metric judged_metric(const std::optional<Metric>& wanted, const Evaluation& evaluation);

// Adds "accuracy", "output_errors", "latency" and "gates" to a report; returns the gates.
std::vector<GateResult> add_judgement(Json& report, const Judgement& judgement,
                                      const GateLimits& limits, std::int64_t bytes_before,
                                      std::int64_t bytes_after);

// One line per missed gate on standard error, with --quiet too.
void tell_missed(const std::vector<GateResult>& gates, Session& session);

}  // namespace onnxpress
