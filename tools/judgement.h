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
  std::string doubt;  // why outputs say nothing, where the run found that already
};

// The first batch of a dataset, and rewinds it.
Batch first_batch(Dataset& data);

// A metric that was asked for and that the labels allow; throws Error otherwise.
Metric judged_metric(const std::optional<Metric>& wanted, const Evaluation& evaluation);

// Adds "accuracy", "output_errors", "latency" and "gates" to a report; returns the gates.
std::vector<GateResult> add_judgement(Json& report, const Judgement& judgement,
                                      const GateLimits& limits, std::int64_t bytes_before,
                                      std::int64_t bytes_after);

// Throws Error unless the engine can run the model: which operator of which domain and version has
// no kernel, in which node, and what works without running the model.
void require_engine_runs(const Model& model);

// Tells what the data's reader did to it on standard error, and adds it to `notes`.
void tell_notes(const Dataset& data, Session& session, std::vector<std::string>& notes);

// One line per missed gate on standard error, with --quiet too.
void tell_missed(const std::vector<GateResult>& gates, Session& session);

}  // namespace onnxpress
