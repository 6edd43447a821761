// Tables of passes: what they did in a run, and what they are.
#include <algorithm>
#include <cmath>
#include <map>

#include "tools/layout_parts.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

std::string snr_text(double snr) {
  return std::isinf(snr) && snr > 0 ? "exact" : fmt::format("{:.1f} dB", snr);
}

// The worst of several outputs' errors, or nothing.
std::string worst_snr(const Json& errors) {
  if (errors.empty()) return "-";
  double worst = HUGE_VAL;
  for (const Json& error : errors) worst = std::min(worst, to_number(error["snr_db"]));
  return snr_text(worst);
}

// The metric shown per pass: the one the gates judge.
std::string shown_metric(const Json& report) {
  return report.contains("accuracy") && !report["accuracy"].is_null()
             ? report["accuracy"]["metric"].get<std::string>()
             : std::string();
}

Cell cell_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return grouped(value.get<std::int64_t>());
  if (value.is_number()) return human_number(value.get<double>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "-";
  return value.dump();
}

std::string heading_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

std::string default_text(const Json& option) {
  return option["default"].is_null() ? "-" : option["default"].get<std::string>();
}

std::string kind_text(const Json& option) {
  if (option.contains("choices")) return option["choices"].get<std::string>();
  const std::string kind = option["kind"].get<std::string>();
  const bool low = option.contains("min"), high = option.contains("max");
  if (!low && !high) return kind;
  const auto limit = [&](const char* key) { return human_number(option[key].get<double>()); };
  if (low && high) return fmt::format("{} {} to {}", kind, limit("min"), limit("max"));
  return low ? fmt::format("{} from {}", kind, limit("min"))
             : fmt::format("{} to {}", kind, limit("max"));
}

void add_detail(Document& document, const Json& pass) {
  document.emplace_back(Heading{pass["name"].get<std::string>()});
  Lines lines{{Cell(pass["summary"].get<std::string>()),
               Cell(fmt::format("effect: {}   needs: {}", pass["effect"].get<std::string>(),
                                pass["needs"].get<std::string>()),
                    Tone::dim)}};
  if (!pass["min_opset"].is_null())
    lines.lines.emplace_back(fmt::format("opset {} or higher: lower models are upgraded",
                                         pass["min_opset"].get<std::int64_t>()),
                             Tone::dim);
  if (!pass["group"].is_null())
    lines.lines.emplace_back("member of " + pass["group"].get<std::string>(), Tone::dim);
  std::string members;
  for (const Json& member : pass["members"])
    members += (members.empty() ? "" : ", ") + member.get<std::string>();
  if (!members.empty()) lines.lines.emplace_back("members, in order: " + members);
  document.emplace_back(std::move(lines));
  if (pass["options"].empty()) return;
  Table table{{{"option"}, {"value"}, {"default"}, {"", false, false, true}}, {}};
  for (const Json& option : pass["options"])
    table.rows.push_back({option["name"].get<std::string>(), kind_text(option),
                          default_text(option), option["help"].get<std::string>()});
  document.emplace_back(std::move(table));
}

std::string saved_text(const Json& bytes) {
  const double saved = bytes["before"].get<double>() - bytes["after"].get<double>();
  if (saved == 0) return "-";
  return saved < 0 ? fmt::format("-{}", human_size(-saved)) : human_size(saved);
}

// What writing the file anew saves or costs, apart from passes; no row when it is nothing.
void add_encoding(Table& table, const Json& entry) {
  const Json& bytes = entry["bytes"];
  if (!entry["pass"].is_null() || bytes["before"] == bytes["after"]) return;
  table.rows.push_back({Cell(fmt::format("({})", entry["what"].get<std::string>()), Tone::dim),
                        human_size(bytes["after"].get<double>()), saved_text(bytes), "", "", "",
                        ""});
}

// How far outputs are from those before each pass and from the original's.
void add_pass_errors(Document& document, const Json& report) {
  const Json& passes = report["passes"];
  const std::string metric = shown_metric(report);
  const bool evaluated = std::any_of(
      passes.begin(), passes.end(), [](const Json& pass) { return !pass["evaluation"].is_null(); });
  Table table{{{"after", false, false, true}, {"step SNR", true}, {"total SNR", true}}, {}};
  if (evaluated) table.columns.push_back({metric, true});
  for (const Json& pass : passes) {
    if (pass["rolled_back"].get<bool>()) continue;
    std::vector<Cell> row{Cell(pass["text"].get<std::string>())};
    row.push_back(pass["changed"].get<bool>() ? Cell(worst_snr(pass["errors"]))
                                              : Cell("no change", Tone::dim));
    row.emplace_back(worst_snr(pass["total_errors"]));
    if (evaluated) {
      const Json& evaluation = pass["evaluation"];
      row.push_back(evaluation.is_null() ? Cell("-", Tone::dim)
                                         : metric_cell(metric, evaluation["metrics"][metric]));
    }
    table.rows.push_back(std::move(row));
  }
  if (table.rows.empty()) return;
  document.emplace_back(Heading{"Outputs after each pass"});
  document.emplace_back(std::move(table));
}

}  // namespace

void add_output_errors(Document& document, const Json& report) {
  if (!report.contains("output_errors") || report["output_errors"].is_null()) return;
  const Json& section = report["output_errors"];
  Table table{{{"output", false, true},
               {"max abs error", true},
               {"of its range", true},
               {"SNR", true},
               {"top-1 agreement", true}},
              {}};
  for (const Json& error : section["outputs"]) {
    const double range = to_number(error["range"]), error_size = to_number(error["max_abs"]);
    const Json& agreement = error["top1_agreement"];
    table.rows.push_back(
        {error["output"].get<std::string>(), human_number(error_size),
         range > 0 ? fmt::format("{} %", human_number(error_size / range * 100)) : "-",
         snr_text(to_number(error["snr_db"])),
         agreement.is_null() ? "-" : fmt::format("{:.2f} %", to_number(agreement) * 100)});
  }
  document.emplace_back(
      Heading{"Outputs against the original, on " + section["data"].get<std::string>()});
  document.emplace_back(std::move(table));
}

void add_passes(Document& document, const Json& report) {
  const Json& passes = report["passes"];
  if (passes.empty()) return;
  Table table{{{"pass", false, false, true},
               {"size after", true},
               {"saved", true},
               {"zeros", true},
               {"nodes", true},
               {"time", true},
               {"checks", true}},
              {}};
  Lines failures;
  const Json& attribution = report["attribution"];
  add_encoding(table, attribution.front());
  for (const Json& pass : passes) {
    const bool back = pass["rolled_back"].get<bool>();
    const Json& bytes = pass["bytes"];
    const double parameters = std::max(pass["parameters"]["after"].get<double>(), 1.0);
    const auto nodes =
        pass["nodes"]["after"].get<std::int64_t>() - pass["nodes"]["before"].get<std::int64_t>();
    std::vector<Cell> row{Cell(pass["text"].get<std::string>(), back ? Tone::bad : Tone::plain)};
    if (back) {
      row.resize(5, Cell("-", Tone::dim));
      row[1] = Cell("rolled back", Tone::bad);
      failures.lines.emplace_back(
          fmt::format("{} was rolled back: {}", pass["pass"].get<std::string>(),
                      pass["failure"].get<std::string>()),
          Tone::bad);
      if (!pass["reproducer"].is_null())
        failures.lines.emplace_back("reproducer: " + pass["reproducer"].get<std::string>());
    } else {
      row.emplace_back(human_size(bytes["after"].get<double>()));
      row.emplace_back(saved_text(bytes));
      row.emplace_back(
          fmt::format("{:.1f} %", pass["zeros"]["after"].get<double>() / parameters * 100));
      row.emplace_back(nodes == 0 ? "=" : fmt::format("{:+}", nodes));
    }
    row.emplace_back(human_seconds(pass["seconds"].get<double>()));
    row.emplace_back(human_seconds(pass["verification_seconds"].get<double>()));
    table.rows.push_back(std::move(row));
  }
  if (attribution.size() > 1) add_encoding(table, attribution.back());
  document.emplace_back(Heading{"Passes"});
  document.emplace_back(std::move(table));
  for (const Json& pass : passes)
    for (const Json& note : pass["notes"])
      failures.lines.emplace_back(pass["pass"].get<std::string>() + ": " + note.get<std::string>());
  if (!failures.lines.empty()) document.emplace_back(std::move(failures));
  add_pass_errors(document, report);
}

void add_layers(Document& document, const Json& report, bool verbose) {
  if (!verbose) return;
  for (const Json& pass : report["passes"]) {
    if (pass["layers"].empty()) continue;
    Table table;
    for (const auto& [key, value] : pass["layers"].front().items())
      table.columns.push_back({heading_of(key), value.is_number(), value.is_string()});
    for (const Json& layer : pass["layers"]) {
      std::vector<Cell> row;
      for (const auto& [key, value] : layer.items()) row.push_back(cell_of(value));
      row.resize(table.columns.size());
      table.rows.push_back(std::move(row));
    }
    document.emplace_back(Heading{"Layers of " + pass["pass"].get<std::string>()});
    document.emplace_back(std::move(table));
  }
}

void add_near_misses(Document& document, const Json& report) {
  if (!report.contains("near_misses")) return;
  Table table{
      {{"rule", false, true}, {"left as it was", false, true}, {"because", false, false, true}},
      {}};
  for (const Json& miss : report["near_misses"])
    table.rows.push_back({miss["rule"].get<std::string>(), miss["subject"].get<std::string>(),
                          miss["reason"].get<std::string>()});
  document.emplace_back(Heading{"Near misses"});
  if (table.rows.empty())
    document.emplace_back(Lines{{Cell("none")}});
  else
    document.emplace_back(std::move(table));
}

Document layout_passes(const Json& report, bool verbose) {
  Document document;
  if (report["detail"].get<bool>()) {
    for (const Json& pass : report["passes"]) add_detail(document, pass);
    return document;
  }
  Table table{{{"pass"}, {"effect"}, {"", false, false, true}}, {}};
  const auto add = [&](const Json& pass, const char* indent) {
    std::string summary = pass["summary"].get<std::string>();
    if (const auto needs = pass["needs"].get<std::string>(); needs != name(Needs::nothing))
      summary += fmt::format("; needs {}", needs);
    table.rows.push_back(
        {indent + pass["name"].get<std::string>(), pass["effect"].get<std::string>(), summary});
  };
  std::map<std::string, const Json*> by_name;
  for (const Json& pass : report["passes"]) by_name[pass["name"].get<std::string>()] = &pass;
  for (const Json& pass : report["passes"]) {
    if (!pass["group"].is_null() && by_name.count(pass["group"].get<std::string>()) > 0) continue;
    add(pass, "");
    for (const Json& member : pass["members"]) add(*by_name.at(member.get<std::string>()), "  ");
  }
  document.emplace_back(std::move(table));
  Table presets{{{"preset"}, {"pipeline"}, {"", false, false, true}}, {}};
  for (const auto& [name, pipeline] : report["presets"].items())
    presets.rows.push_back(
        {name, pipeline.get<std::string>(), report["preset_effects"].value(name, std::string())});
  if (!presets.rows.empty()) document.emplace_back(std::move(presets));
  Table effects{{{"effect"}, {"what it allows", false, false, true}}, {}};
  for (const auto& [name, text] : report["effects"].items())
    effects.rows.push_back({name, text.get<std::string>()});
  document.emplace_back(std::move(effects));
  if (verbose)
    for (const Json& pass : report["passes"]) add_detail(document, pass);
  return document;
}

}  // namespace onnxpress
