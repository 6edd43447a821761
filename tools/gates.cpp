#include "tools/gates.h"

#include <cmath>

#include "graph/base/error.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

GateResult result(const char* option, const std::string& limit, double value, double margin) {
  GateResult gate;
  gate.option = option;
  gate.limit = limit;
  gate.value = value;
  gate.margin = margin;
  gate.met = margin >= 0;  // false for NaN
  return gate;
}

// Room for the rounding of decimal fractions: 0.5 % of 200 samples is one sample.
double rounded(double value) { return std::round(value * 1e9) / 1e9; }

// A gate that nothing can meet: there is nothing to measure against.
GateResult doubtful_gate(const char* option, const std::string& limit, const Measured& measured) {
  GateResult gate = result(option, limit, std::nan(""), std::nan(""));
  gate.text = "could not be judged: " + measured.doubt;
  return gate;
}

GateResult drop_gate(const Limit<double>& limit, const Measured& measured) {
  require(measured.before && measured.after, "--max-drop needs --eval");
  if (!measured.doubt.empty()) return doubtful_gate("--max-drop", limit.text, measured);
  const double before = measured.before->value, after = measured.after->value;
  const bool points = higher_is_better(measured.metric);
  // A loss that was zero and is not any more has risen without bound.
  const double drop = points            ? rounded((before - after) * 100)
                      : after == before ? 0.0
                                        : rounded((after - before) / std::abs(before) * 100);
  GateResult gate = result("--max-drop", limit.text, drop, rounded(limit.value - drop));
  const char* unit = points ? " points" : " %";
  const char* verb = points ? (drop < 0 ? "rose" : "fell") : (drop < 0 ? "fell" : "rose");
  gate.text = fmt::format("{} {} by {:.2f}{} ({} to {}), {:.2f} {}", name(measured.metric), verb,
                          std::abs(drop), unit, metric_text(measured.metric, before),
                          metric_text(measured.metric, after), std::abs(gate.margin),
                          gate.met ? "to spare" : "more than allowed");
  return gate;
}

GateResult ratio_gate(const Limit<double>& limit, const Measured& measured) {
  const double ratio = static_cast<double>(measured.bytes_before) /
                       static_cast<double>(std::max<std::int64_t>(measured.bytes_after, 1));
  GateResult gate = result("--min-ratio", limit.text, ratio, ratio - limit.value);
  gate.text = fmt::format("{:.2f} times smaller ({} to {} bytes), {:.2f} {}", ratio,
                          grouped(measured.bytes_before), grouped(measured.bytes_after),
                          std::abs(gate.margin), gate.met ? "to spare" : "short");
  return gate;
}

GateResult size_gate(const Limit<std::int64_t>& limit, const Measured& measured) {
  const std::int64_t left = limit.value - measured.bytes_after;
  GateResult gate = result("--max-size", limit.text, static_cast<double>(measured.bytes_after),
                           static_cast<double>(left));
  gate.text = fmt::format("{} bytes, {} {}", grouped(measured.bytes_after), grouped(std::abs(left)),
                          gate.met ? "to spare" : "more than allowed");
  return gate;
}

GateResult agreement_gate(const Limit<double>& limit, const Measured& measured) {
  require(measured.agreement.has_value(),
          "--min-agreement: no output has a class axis whose top-1 could agree");
  if (!measured.doubt.empty()) return doubtful_gate("--min-agreement", limit.text, measured);
  const double percent = rounded(*measured.agreement * 100);
  GateResult gate = result("--min-agreement", limit.text, percent, rounded(percent - limit.value));
  gate.text = fmt::format("top-1 agrees on {:.2f} % of the samples, {:.2f} {}", percent,
                          std::abs(gate.margin), gate.met ? "to spare" : "short");
  return gate;
}

GateResult latency_gate(const Limit<double>& limit, const Measured& measured) {
  require(measured.latency_ratio.has_value(), "--max-latency-ratio: no latency was measured");
  const double ratio = *measured.latency_ratio;
  GateResult gate = result("--max-latency-ratio", limit.text, ratio, limit.value - ratio);
  gate.text = fmt::format("{:.3f} times the original's time, {:.3f} {}", ratio,
                          std::abs(gate.margin), gate.met ? "to spare" : "more than allowed");
  return gate;
}

}  // namespace

std::vector<GateResult> decide_gates(const GateLimits& limits, const Measured& measured) {
  std::vector<GateResult> gates;
  if (limits.max_drop) gates.push_back(drop_gate(*limits.max_drop, measured));
  if (limits.min_ratio) gates.push_back(ratio_gate(*limits.min_ratio, measured));
  if (limits.max_size) gates.push_back(size_gate(*limits.max_size, measured));
  if (limits.min_agreement) gates.push_back(agreement_gate(*limits.min_agreement, measured));
  if (limits.max_latency_ratio) gates.push_back(latency_gate(*limits.max_latency_ratio, measured));
  return gates;
}

Metric default_metric(const Evaluation& evaluation) {
  return evaluation.find(Metric::top1) != nullptr ? Metric::top1 : Metric::mse;
}

std::string metric_text(Metric metric, double value) {
  return higher_is_better(metric) ? fmt::format("{:.2f} %", value * 100) : human_number(value);
}

}  // namespace onnxpress
