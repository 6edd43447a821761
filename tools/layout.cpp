// Reports laid out for people: from the JSON alone.
#include <algorithm>
#include <cmath>
#include <map>

#include "tools/document.h"
#include "tools/layout_parts.h"
#include "tools/units.h"

namespace onnxpress {

void add_notes(Document& document, const Json& report) {
  if (!report.contains("notes") || report["notes"].empty()) return;
  Lines lines;
  for (const Json& note : report["notes"]) lines.lines.emplace_back(note.get<std::string>());
  document.emplace_back(Heading{"Notes"});
  document.emplace_back(std::move(lines));
}

std::string file_name(const Json& model) {
  const std::string& path = model["file"].get_ref<const std::string&>();
  return path == "-" ? "(pipe)" : path;
}

void add_headline(Document& document, const Json& report, const std::string& what,
                  const std::string& more) {
  Lines lines;
  const std::string& headline = report["headline"].get_ref<const std::string&>();
  const bool bad = !report.value("verified", true) || report.value("generated_data", false);
  if (!headline.empty()) lines.lines.emplace_back(headline, bad ? Tone::bad : Tone::good);
  if (report.contains("warnings"))
    for (const Json& warning : report["warnings"])
      lines.lines.emplace_back("WARNING: " + warning.get<std::string>(), Tone::bad);
  lines.lines.emplace_back(what, Tone::strong);
  if (!more.empty()) lines.lines.emplace_back(more, Tone::dim);
  document.emplace_back(std::move(lines));
}

namespace {

void add_gates(Document& document, const Json& report) {
  if (report["gates"].empty()) return;
  Table table{{{""}, {""}, {""}}, {}};
  for (const Json& gate : report["gates"]) {
    const bool met = gate["met"].get<bool>();
    table.rows.push_back(
        {Cell(met ? "met" : "missed", met ? Tone::good : Tone::bad),
         gate["option"].get<std::string>() + " " + gate["limit"].get<std::string>(),
         gate["text"].get<std::string>()});
  }
  document.emplace_back(Heading{"Gates"});
  document.emplace_back(std::move(table));
}

void add_latency(Document& document, const Json& report) {
  if (!report.contains("latency") || report["latency"].is_null()) return;
  const Json& latency = report["latency"];
  document.emplace_back(Lines{{Cell(fmt::format(
      "Latency, {} sample{} a run, median of {} runs side by side: {} before, {} after, ratio "
      "{:.3f}",
      latency["rows"].get<std::int64_t>(), latency["rows"] == 1 ? "" : "s",
      latency["runs"].get<int>(), human_seconds(latency["before_seconds"].get<double>()),
      human_seconds(latency["after_seconds"].get<double>()), latency["ratio"].get<double>()))}});
}

Document layout_compress(const Json& report, bool verbose) {
  Document document;
  const bool written = report["written"].get<bool>();
  add_headline(document, report,
               fmt::format("{} -> {}", file_name(report["before"]),
                           written ? file_name(report["after"]) : "(not written)"),
               "pipeline: " + report["pipeline"].get<std::string>());
  document.emplace_back(before_after_table(report));
  add_output_errors(document, report);
  add_passes(document, report);
  add_trainings(document, report, verbose);
  add_sizes(document, report, verbose);
  add_layers(document, report, verbose);
  add_latency(document, report);
  add_near_misses(document, report);
  add_notes(document, report);
  add_gates(document, report);
  return document;
}

Document layout_compare(const Json& report, bool verbose) {
  Document document;
  add_headline(document, report,
               fmt::format("{} -> {}", file_name(report["before"]), file_name(report["after"])));
  document.emplace_back(before_after_table(report));
  add_output_errors(document, report);
  add_sizes(document, report, verbose);
  add_latency(document, report);
  add_notes(document, report);
  add_gates(document, report);
  return document;
}

Document layout_eval(const Json& report, bool) {
  Document document;
  add_headline(document, report,
               fmt::format("{} on {}", file_name(report["model"]),
                           report["data"]["eval"]["description"].get<std::string>()));
  const Json& evaluation = report["evaluation"];
  Table table{{{""}, {"value", true}, {"95 % interval", true}}, {}};
  for (const auto& [metric, value] : evaluation["metrics"].items())
    table.rows.push_back({metric, metric_cell(metric, value), interval_cell(value)});
  table.rows.push_back({"samples", grouped(evaluation["samples"].get<std::int64_t>()), ""});
  table.rows.push_back({"output", evaluation["output"].get<std::string>(), ""});
  table.rows.push_back({"time", human_seconds(evaluation["seconds"].get<double>()), ""});
  document.emplace_back(std::move(table));
  add_notes(document, report);
  return document;
}

std::string gflops_text(const Json& row) {
  return row["gflops"].is_null() ? "-" : fmt::format("{:.2f}", row["gflops"].get<double>());
}

void add_profile(Document& document, const Json& report) {
  if (!report.contains("profile")) return;
  const Json& profile = report["profile"];
  const auto add = [](Table& table, const Json& row, std::vector<Cell> cells) {
    cells.emplace_back(grouped(row["calls"].get<std::int64_t>()));
    cells.emplace_back(human_seconds(row["seconds"].get<double>()));
    cells.emplace_back(fmt::format("{:.1f} %", row["share"].get<double>() * 100));
    cells.emplace_back(gflops_text(row));
    table.rows.push_back(std::move(cells));
  };
  Table operators{{{"operator", false, true},
                   {"calls", true},
                   {"time", true},
                   {"share", true},
                   {"GFLOP/s", true}},
                  {}};
  for (const Json& row : profile["operators"])
    add(operators, row, {row["operator"].get<std::string>()});
  document.emplace_back(Heading{fmt::format("Time by operator ({} steps, {})",
                                            grouped(profile["steps"].get<std::int64_t>()),
                                            human_seconds(profile["seconds"].get<double>()))});
  document.emplace_back(std::move(operators));
  Table nodes{{{"node", false, true},
               {"operator", false, true},
               {"backend"},
               {"calls", true},
               {"time", true},
               {"share", true},
               {"GFLOP/s", true}},
              {}};
  for (const Json& row : profile["nodes"])
    add(nodes, row,
        {row["node"].get<std::string>(), row["operator"].get<std::string>(),
         row["backend"].get<std::string>()});
  document.emplace_back(Heading{"Slowest nodes"});
  document.emplace_back(std::move(nodes));
}

Document layout_run(const Json& report, bool) {
  Document document;
  add_headline(document, report,
               fmt::format("{} on {}", file_name(report["model"]),
                           report["data"]["input"]["description"].get<std::string>()));
  Table table{{{"output"}, {"type"}, {"shape"}, {"stored as"}}, {}};
  for (const Json& output : report["outputs"])
    table.rows.push_back({output["name"].get<std::string>(), output["type"].get<std::string>(),
                          dims_text(output["dims"]), output["stored_as"].get<std::string>()});
  document.emplace_back(std::move(table));
  add_profile(document, report);
  add_notes(document, report);
  return document;
}

Document layout_inspect(const Json& report, bool verbose) {
  Document document;
  const Json& model = report["model"];
  add_headline(document, report, file_name(model));
  document.emplace_back(model_table(report));
  document.emplace_back(Heading{"Inputs and outputs"});
  document.emplace_back(interface_table(report["interface"]));
  add_operator_table(document, model, verbose);
  add_type_table(document, model);
  add_tensor_table(document, model);
  const Json& unsupported = report["interface"]["unsupported_operators"];
  Lines lines;
  for (const Json& op : unsupported) lines.lines.emplace_back(op.get<std::string>(), Tone::bad);
  if (!unsupported.empty()) {
    document.emplace_back(Heading{"Operators that the engine cannot run"});
    document.emplace_back(std::move(lines));
  }
  add_notes(document, report);
  return document;
}

}  // namespace

Document layout(const Json& report, bool verbose) {
  static const std::map<std::string, Document (*)(const Json&, bool)> layouts{
      {"compress", layout_compress}, {"finetune", layout_compress}, {"distill", layout_compress},
      {"compare", layout_compare},   {"eval", layout_eval},         {"run", layout_run},
      {"inspect", layout_inspect},   {"passes", layout_passes},     {"analyze", layout_analyze},
  };
  return layouts.at(report["kind"].get<std::string>())(report, verbose);
}

}  // namespace onnxpress
