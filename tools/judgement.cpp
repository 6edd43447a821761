#include "tools/judgement.h"

#include <unistd.h>

#include "graph/base/error.h"

namespace onnxpress {

std::vector<Tensor> first_batch(Dataset& data) {
  Batch batch;
  data.rewind();
  require(data.next(batch), "'{}' has no samples", data.description());
  data.rewind();
  return batch.inputs;
}

Metric judged_metric(const std::optional<Metric>& wanted, const Evaluation& evaluation) {
  if (!wanted) return default_metric(evaluation);
  require(evaluation.find(*wanted) != nullptr, "--metric {}: the labels do not allow it",
          name(*wanted));
  return *wanted;
}

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
  report["latency"] = judgement.latency ? latency_section(*judgement.latency) : Json();
  std::vector<GateResult> gates = decide_gates(limits, measured);
  report["gates"] = gates_section(gates);
  return gates;
}

void tell_missed(const std::vector<GateResult>& gates, Session& session) {
  session.progress().clear();
  for (const GateResult& gate : gates)
    if (!gate.met)
      write_to(STDERR_FILENO, fmt::format("onnxpress: gate missed: {}{}{}: {}\n", gate.option,
                                          gate.limit.empty() ? "" : " ", gate.limit, gate.text));
}

}  // namespace onnxpress
