#include "tools/judgement.h"

#include <unistd.h>

#include "graph/base/error.h"
#include "graph/exec/unsupported.h"

namespace onnxpress {

Batch first_batch(Dataset& data) {
  Batch batch;
  data.rewind();
  require(data.next(batch), "'{}' has no samples", data.description());
  data.rewind();
  return batch;
}

Metric judged_metric(const std::optional<Metric>& wanted, const Evaluation& evaluation) {
  if (!wanted) return default_metric(evaluation);
  require(evaluation.find(*wanted) != nullptr, "--metric {}: the labels do not allow it",
          name(*wanted));
  return *wanted;
}

namespace {

// Outputs that hold NaN or infinities.
void add_warnings(Json& report, const Judgement& judgement) {
  const auto add = [&](const char* which, const std::string& output, const NonFinite& found) {
    if (found.any())
      report["warnings"].push_back(fmt::format("{} model, {}", which, to_string(output, found)));
  };
  for (const OutputError& error : judgement.errors) {
    add("the original", error.output, error.before);
    add("the resulting", error.output, error.after);
  }
}

}  // namespace

std::vector<GateResult> add_judgement(Json& report, const Judgement& judgement,
                                      const GateLimits& limits, std::int64_t bytes_before,
                                      std::int64_t bytes_after) {
  Measured measured;
  measured.metric = judgement.metric;
  measured.bytes_before = bytes_before;
  measured.bytes_after = bytes_after;
  measured.agreement = lowest_agreement(judgement.errors);
  if (judgement.latency) measured.latency_ratio = judgement.latency->ratio;
  report["accuracy"] = Json();
  if (judgement.before && judgement.after) {
    measured.before = *judgement.before->find(judgement.metric);
    measured.after = *judgement.after->find(judgement.metric);
    report["accuracy"] = {{"metric", name(judgement.metric)},
                          {"before", evaluation_section(*judgement.before)},
                          {"after", evaluation_section(*judgement.after)}};
  }
  report["output_errors"] = Json();
  if (!judgement.errors.empty())
    report["output_errors"] = {{"data", judgement.errors_on},
                               {"outputs", errors_section(judgement.errors)}};
  if (judgement.before && judgement.before->non_finite.all())
    measured.doubt = "the original's judged output has no finite number";
  else if (is_unjudgeable(judgement.errors))
    measured.doubt = "no output of the original has a finite number";
  else
    measured.doubt = judgement.doubt;
  add_warnings(report, judgement);
  report["latency"] = judgement.latency ? latency_section(*judgement.latency) : Json();
  std::vector<GateResult> gates = decide_gates(limits, measured);
  report["gates"] = gates_section(gates);
  return gates;
}

void require_engine_runs(const Model& model) {
  const std::vector<UnsupportedOperator> missing = unsupported_operators(model);
  if (missing.empty()) return;
  fail(
      "{}; without running the model there are inspect, compare without --data, and compress "
      "without --eval",
      describe(missing));
}

void tell_notes(const Dataset& data, Session& session, std::vector<std::string>& notes) {
  for (const std::string& note : data.notes()) {
    session.message("note: " + note);
    notes.push_back(note);
  }
}

void tell_missed(const std::vector<GateResult>& gates, Session& session) {
  session.progress().clear();
  for (const GateResult& gate : gates)
    if (!gate.met)
      write_to(STDERR_FILENO,
               message_line(fmt::format("gate missed: {}{}{}: {}", gate.option,
                                        gate.limit.empty() ? "" : " ", gate.limit, gate.text)));
}

}  // namespace onnxpress
