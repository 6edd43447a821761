// The ranking of layers by what quantizing them costs.
#include <algorithm>

#include "tools/layout_parts.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

constexpr std::size_t short_list = 20;

std::string decibel_text(const Json& value) {
  if (value.is_null()) return "-";
  return value.is_number() ? fmt::format("{:.1f}", value.get<double>()) : value.get<std::string>();
}

std::string share_text(const Json& value) { return value.is_null() ? "-" : fmt::format("{:.2f} %", 100 * value.get<double>()); }

std::vector<Cell> quality_row(const std::string& what, const Json& quality) {
  return {what, decibel_text(quality["snr_db"]), share_text(quality["top1_agreement"]), share_text(quality["top1"])};
}

void add_layer_table(Document& document, const Json& analysis, bool verbose) {
  // Names are continued below: cut, those of one network look alike.
  Table table{{{"layer", false, false, true},
               {"operator"},
               {"weights", true},
               {"output SNR dB", true},
               {"share", true},
               {"own SNR dB", true},
               {"weight SNR dB", true},
               {"same top-1", true},
               {"cause", false, false, true}},
              {}};
  const Json& layers = analysis["layers"];
  const std::size_t shown = verbose ? layers.size() : std::min(layers.size(), short_list);
  for (std::size_t i = 0; i < shown; ++i) {
    const Json& layer = layers[i];
    std::string cause = layer["failure"].get<std::string>();
    for (const Json& found : layer["causes"]) cause += (cause.empty() ? "" : "; ") + found["cause"].get<std::string>();
    const bool heavy = layer["share"].get<double>() >= 0.1;
    table.rows.push_back({Cell(layer["node"].get<std::string>(), heavy ? Tone::strong : Tone::plain), layer["op"].get<std::string>(),
                          grouped(layer["weights"].get<std::int64_t>()), decibel_text(layer["output_snr_db"]),
                          fmt::format("{:.1f} %", 100 * layer["share"].get<double>()), decibel_text(layer["local_snr_db"]),
                          decibel_text(layer["weight_snr_db"]), share_text(layer["top1_agreement"]), cause});
  }
  document.emplace_back(Heading{"One layer quantized at a time, the most harmful first"});
  document.emplace_back(std::move(table));
  if (shown < layers.size())
    document.emplace_back(Lines{{Cell(fmt::format("{} more with --verbose", layers.size() - shown), Tone::dim)}});
}

void add_causes(Document& document, const Json& analysis) {
  Table table{{{"layer", false, false, true}, {"cause"}, {"", false, false, true}, {"what helps", false, false, true}}, {}};
  const Json& layers = analysis["layers"];
  for (std::size_t i = 0; i < std::min(layers.size(), short_list); ++i)
    for (const Json& cause : layers[i]["causes"])
      table.rows.push_back({layers[i]["node"].get<std::string>(), cause["cause"].get<std::string>(), cause["detail"].get<std::string>(),
                            cause["remedy"].get<std::string>()});
  if (table.rows.empty()) return;
  document.emplace_back(Heading{"Why"});
  document.emplace_back(std::move(table));
}

void add_left(Document& document, const Json& analysis, bool verbose) {
  const Json& left = analysis["left"];
  if (left.empty()) return;
  Table table{{{"node", false, false, true}, {"why", false, false, true}}, {}};
  const std::size_t shown = verbose ? left.size() : std::min(left.size(), short_list);
  for (std::size_t i = 0; i < shown; ++i)
    table.rows.push_back({left[i]["node"].get<std::string>(), left[i]["reason"].get<std::string>()});
  document.emplace_back(Heading{"Left in float, at least in part"});
  document.emplace_back(std::move(table));
  if (shown < left.size())
    document.emplace_back(Lines{{Cell(fmt::format("{} more with --verbose", left.size() - shown), Tone::dim)}});
}

}  // namespace

Document layout_analyze(const Json& report, bool verbose) {
  Document document;
  const Json& analysis = report["analysis"];
  add_headline(document, report,
               fmt::format("{} on {}", file_name(report["model"]), report["data"]["calib"]["description"].get<std::string>()),
               fmt::format("{}, outputs compared on {} samples", report["quantize"].get<std::string>(),
                           analysis["samples"].get<std::int64_t>()));
  add_layer_table(document, analysis, verbose);
  add_causes(document, analysis);
  add_left(document, analysis, verbose);
  Table table{{{""}, {"output SNR dB", true}, {"same top-1", true}, {"top-1", true}}, {}};
  table.rows.push_back(quality_row("every layer quantized", analysis["all"]));
  const std::string& overrides = analysis["overrides"].get_ref<const std::string&>();
  if (!overrides.empty()) table.rows.push_back(quality_row("with the overrides below", analysis["with_overrides"]));
  document.emplace_back(Heading{"Together"});
  document.emplace_back(std::move(table));
  if (!overrides.empty())
    document.emplace_back(Lines{{Cell(overrides, Tone::strong)}});
  else if (!analysis["layers"].empty())
    document.emplace_back(Lines{{Cell("no overrides: no few layers make most of the noise", Tone::dim)}});
  add_notes(document, report);
  return document;
}

}  // namespace onnxpress
