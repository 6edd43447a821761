#include "tools/report.h"

#include <algorithm>
#include <cmath>

#include "tools/environment.h"

namespace onnxpress {

namespace {

Json counted(const std::vector<CountedBytes>& list, bool with_macs) {
  Json result = Json::array();
  for (const CountedBytes& entry : list) {
    Json item = {{"name", entry.key}, {"count", entry.count}, {"bytes", entry.bytes}};
    if (with_macs) item["macs"] = entry.macs;
    result.push_back(std::move(item));
  }
  return result;
}

Json change(std::int64_t before, std::int64_t after) {
  return {{"before", before}, {"after", after}};
}

std::string domain_name(const std::string& domain) { return domain.empty() ? "ai.onnx" : domain; }

Json values_section(std::span<Value* const> values) {
  Json result = Json::array();
  for (const Value* value : values)
    result.push_back({{"name", value->name()}, {"type", to_string(value->type)}});
  return result;
}

std::string_view kind_name(OptionSpec::Kind kind) {
  switch (kind) {
    case OptionSpec::Kind::integer:
      return "integer";
    case OptionSpec::Kind::number:
      return "number";
    case OptionSpec::Kind::flag:
      return "flag";
    case OptionSpec::Kind::text:
      return "text";
    case OptionSpec::Kind::choice:
      return "choice";
    case OptionSpec::Kind::selector:
      return "selector";
  }
  return "text";
}

}  // namespace

Json report_header(const RunInfo& run) {
  return {{"schema", report_schema},
          {"kind", run.kind},
          {"tool", {{"name", "onnxpress"}, {"version", tool_version()}}},
          {"environment",
           {{"seed", run.seed}, {"threads", run.threads}, {"cpu", cpu_instruction_set()}}}};
}

Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

Json model_section(const ModelFile& file, const Model& model, const ModelStats& stats,
                   std::size_t tensors) {
  Json opsets = Json::object();
  for (const auto& [domain, version] : model.opsets) opsets[domain_name(domain)] = version;
  Json largest = Json::array();
  for (std::size_t i = 0; i < std::min(tensors, stats.tensors.size()); ++i) {
    const TensorStats& tensor = stats.tensors[i];
    largest.push_back({{"name", tensor.name},
                       {"type", tensor.type},
                       {"dims", tensor.dims},
                       {"bytes", tensor.bytes},
                       {"elements", tensor.elements},
                       {"zeros", tensor.zeros},
                       {"bits", tensor.bits},
                       {"op", tensor.op_type},
                       {"node", tensor.node}});
  }
  Json result = {{"file", file.path},
                 {"sha256", file.sha256},
                 {"bytes",
                  {{"file", file.file},
                   {"external", file.external},
                   {"total", file.total},
                   {"deflated", file.deflated ? Json(*file.deflated) : Json()}}},
                 {"ir_version", model.ir_version},
                 {"opsets", std::move(opsets)},
                 {"nodes", stats.nodes},
                 {"parameters", stats.parameters},
                 {"zeros", stats.zeros},
                 {"sparsity", stats.sparsity()},
                 {"tensor_bytes", stats.tensor_bytes},
                 {"macs", stats.macs},
                 {"macs_unknown", stats.macs_unknown},
                 {"activation_bytes", stats.activation_bytes},
                 {"activation_peak_at", stats.activation_peak_at},
                 {"activations_unknown", stats.activations_unknown},
                 {"open_dims", stats.open_dims},
                 {"open_dims_are_1", stats.open_dims_are_1},
                 {"by_operator", counted(stats.by_operator, true)},
                 {"by_type", counted(stats.by_type, false)},
                 {"tensor_count", stats.tensors.size()},
                 {"largest_tensors", std::move(largest)}};
  return result;
}

Json interface_section(const Model& model) {
  Json functions = Json::array();
  for (const auto& function : model.functions)
    functions.push_back({{"name", function->name},
                         {"domain", function->domain},
                         {"nodes", function->body.node_count()}});
  Json metadata = Json::object();
  for (const auto& [key, value] : model.metadata) metadata[key] = value;
  std::vector<Value*> inputs;  // an overridable initializer is no input to give
  for (Value* input : model.graph.inputs())
    if (input->initializer() == nullptr) inputs.push_back(input);
  return {{"graph", model.graph.name},
          {"producer", {{"name", model.producer_name}, {"version", model.producer_version}}},
          {"model_version", model.model_version},
          {"inputs", values_section(inputs)},
          {"outputs", values_section(model.graph.outputs())},
          {"functions", std::move(functions)},
          {"metadata", std::move(metadata)},
          {"unsupported_operators", Engine::unsupported(model)}};
}

Json non_finite_section(const NonFinite& found) {
  return {{"elements", found.elements}, {"nan", found.nan}, {"infinite", found.infinite}};
}

Json data_section(const Dataset& data) {
  return {{"description", data.description()},
          {"samples", data.samples()},
          {"generated", data.generated()},
          {"sha256", data.generated() ? Json() : Json(data.hash())},
          {"notes", data.notes()}};
}

Json evaluation_section(const Evaluation& evaluation) {
  Json metrics = Json::object();
  for (const MetricValue& value : evaluation.values) {
    Json& entry = metrics[std::string(name(value.metric))];
    entry = {{"value", number(value.value)}};
    if (is_proportion(value.metric)) entry["interval95"] = {number(value.low), number(value.high)};
  }
  return {
      {"samples", evaluation.samples}, {"positions", evaluation.positions},
      {"correct", evaluation.correct}, {"output", evaluation.output},
      {"metrics", std::move(metrics)}, {"non_finite", non_finite_section(evaluation.non_finite)},
      {"seconds", evaluation.seconds}};
}

Json errors_section(const std::vector<OutputError>& errors) {
  Json result = Json::array();
  for (const OutputError& error : errors)
    result.push_back(
        {{"output", error.output},
         {"samples", error.samples},
         {"max_abs", number(error.max_abs)},
         {"range", number(error.range)},
         {"snr_db", number(error.snr_db)},
         {"top1_agreement", error.top1_agreement ? Json(number(*error.top1_agreement)) : Json()},
         {"non_finite_before", non_finite_section(error.before)},
         {"non_finite_after", non_finite_section(error.after)}});
  return result;
}

Json latency_section(const Latency& latency) {
  return {{"before_seconds", latency.before},
          {"after_seconds", latency.after},
          {"ratio", latency.ratio},
          {"runs", latency.runs},
          {"rows", latency.rows}};
}

Json gates_section(const std::vector<GateResult>& gates) {
  Json result = Json::array();
  for (const GateResult& gate : gates)
    result.push_back({{"option", gate.option},
                      {"limit", gate.limit},
                      {"value", number(gate.value)},
                      {"margin", number(gate.margin)},
                      {"met", gate.met},
                      {"text", gate.text}});
  return result;
}

Json pass_section(const PassRecord& record) {
  Json result = {
      {"pass", record.pass},
      {"text", record.text},
      {"reason", record.reason.empty() ? Json() : Json(record.reason)},
      {"options", record.options},
      {"effect", name(record.effect)},
      {"changed", record.changed},
      {"rolled_back", record.rolled_back},
      {"failure", record.rolled_back ? Json(record.failure) : Json()},
      {"reproducer", record.reproducer.empty() ? Json() : Json(record.reproducer.string())},
      {"probed", record.probed},
      {"seconds", record.seconds},
      {"verification_seconds", record.verification_seconds},
      {"bytes", change(record.bytes_before, record.bytes_after)},
      {"parameters", change(record.parameters_before, record.parameters_after)},
      {"zeros", change(record.zeros_before, record.zeros_after)},
      {"macs", change(record.macs_before, record.macs_after)},
      {"nodes", change(record.nodes_before, record.nodes_after)},
      {"errors", errors_section(record.errors)},
      {"total_errors", errors_section(record.total_errors)},
      {"evaluation", Json()},
      {"notes", record.outcome.notes},
      {"counts", record.outcome.counts},
      {"layers", record.outcome.layers},
      {"training", record.outcome.training}};
  if (record.evaluation) result["evaluation"] = evaluation_section(*record.evaluation);
  return result;
}

Json near_misses_section(const std::vector<PassRecord>& records, const std::string& rule) {
  Json result = Json::array();
  for (const PassRecord& record : records)
    for (const NearMiss& miss : record.near_misses)
      if (rule.empty() || rule == miss.rule || rule == record.pass ||
          record.outcome.counts.contains(rule + "." + miss.rule))  // a member of a group
        result.push_back({{"pass", record.pass},
                          {"rule", miss.rule},
                          {"subject", miss.subject},
                          {"reason", miss.reason}});
  return result;
}

Json pass_description(const Pass& pass) {
  const PassInfo& info = pass.info();
  Json options = Json::array();
  for (const OptionSpec& option : info.options) {
    Json item = {{"name", option.name},
                 {"kind", kind_name(option.kind)},
                 {"default", option.default_value.empty() ? Json() : Json(option.default_value)},
                 {"help", option.help}};
    if (option.kind == OptionSpec::Kind::choice) item["choices"] = option.choices;
    if (option.min > -1e300) item["min"] = option.min;
    if (option.max < 1e300) item["max"] = option.max;
    options.push_back(std::move(item));
  }
  Json members = Json::array();
  for (const Pass* member : passes().members(info.name)) members.push_back(member->info().name);
  return {{"name", info.name},
          {"summary", info.summary},
          {"effect", name(info.effect)},
          {"needs", name(info.needs)},
          {"min_opset", info.min_opset == 0 ? Json() : Json(info.min_opset)},
          {"group", info.group.empty() ? Json() : Json(info.group)},
          {"members", std::move(members)},
          {"options", std::move(options)}};
}

}  // namespace onnxpress
