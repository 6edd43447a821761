// Tables of models: one alone, or two side by side.
#include <algorithm>
#include <cmath>

#include "tools/layout_parts.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

constexpr std::size_t short_list = 12;

std::string percent(double share) { return fmt::format("{:.1f} %", share * 100); }

// A signed number; one significant digit where `decimals` would show a change as zero.
std::string change_text(double change, int decimals) {
  const bool hidden = std::fabs(change) * std::pow(10, decimals) < 0.5;
  return hidden && change != 0 ? fmt::format("{:+.1g}", change) : fmt::format("{:+.{}f}", change, decimals);
}

// A signed change in per cent, "=" when there is none.
Cell change_cell(double before, double after) {
  if (before == after) return {"=", Tone::dim};
  if (before == 0) return {fmt::format("{:+.0f}", after), Tone::plain};
  return {change_text((after - before) / before * 100, 1) + " %", Tone::plain};
}

Cell ratio_cell(double before, double after) {
  if (before == after || after <= 0) return {"=", Tone::dim};
  if (after > before)
    return {fmt::format("{:.2f}x larger", after / std::max(before, 1.0)), Tone::bad};
  return {fmt::format("{:.2f}x smaller", before / after), Tone::good};
}

std::string macs_text(const Json& model) {
  const auto unknown = model["macs_unknown"].get<std::int64_t>();
  const std::string text = human_count(model["macs"].get<double>());
  return unknown == 0 ? text : fmt::format("{} + {} unknown", text, unknown);
}

std::string opsets_text(const Json& model) {
  std::string text;
  for (const auto& [domain, version] : model["opsets"].items())
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", domain, version.get<std::int64_t>());
  return text;
}

// "17 -> 13"; with several domains, those that changed.
std::string opset_change_text(const Json& a, const Json& b) {
  std::string text;
  const auto version = [](const Json& opsets, const std::string& domain) {
    return opsets.contains(domain) ? fmt::format("{}", opsets[domain].get<std::int64_t>()) : "-";
  };
  const auto add = [&](const std::string& domain) {
    const std::string before = version(a["opsets"], domain), after = version(b["opsets"], domain);
    if (before == after) return;
    text += fmt::format("{}{}{} -> {}", text.empty() ? "" : ", ",
                        domain == "ai.onnx" ? "" : domain + " ", before, after);
  };
  for (const auto& [domain, number] : a["opsets"].items()) add(domain);
  for (const auto& [domain, number] : b["opsets"].items())
    if (!a["opsets"].contains(domain)) add(domain);
  return text;
}

std::string activation_text(const Json& model) {
  const auto unknown = model["activations_unknown"].get<std::int64_t>();
  const std::string text = human_size(model["activation_bytes"].get<double>());
  return unknown == 0 ? text : fmt::format("{} + {} unknown", text, unknown);
}

// What sizes that depend on open dims are for: " with batch = 1, sequence = 1".
std::string open_dims_text(const Json& model) {
  std::string text;
  if (!model["open_dims_are_1"].get<bool>()) {
    for (const Json& dim : model["open_dims"])
      text += fmt::format("{}{}", text.empty() ? " (--input-shape counts all: open are " : ", ",
                          dim.get<std::string>());
    return text + ")";
  }
  for (const Json& dim : model["open_dims"])
    text += fmt::format("{}{} = 1", text.empty() ? " with " : ", ", dim.get<std::string>());
  return text;
}

std::string deflated_text(const Json& model) {
  const Json& deflated = model["bytes"]["deflated"];
  return deflated.is_null() ? "not measured" : human_size(deflated.get<double>());
}

void add_metric_rows(Table& table, const Json& before, const Json& after) {
  for (const auto& [metric, value] : before["metrics"].items()) {
    const Json& other = after["metrics"][metric];
    const double a = to_number(value["value"]), b = to_number(other["value"]);
    const bool loss = metric == "cross_entropy" || metric == "mse";
    const bool worse = loss ? b > a : b < a;
    Cell change = change_cell(a, b);
    if (!loss && a != b) change.text = change_text((b - a) * 100, 2) + " points";
    if (a != b) change.tone = worse ? Tone::bad : Tone::good;
    table.rows.push_back({metric, metric_cell(metric, value), metric_cell(metric, other), change,
                          interval_cell(other)});
  }
  const std::string samples = grouped(after["samples"].get<std::int64_t>());
  table.rows.push_back(
      {"samples", grouped(before["samples"].get<std::int64_t>()), samples, "", ""});
}

struct Entry {
  std::int64_t count = 0, bytes = 0, macs = 0;
};

// Entry `name` of a list of {"name", "count", "bytes"}; zeros when it is not there.
Entry entry_of(const Json& list, const std::string& name) {
  for (const Json& item : list)
    if (item["name"] == name)
      return {item["count"].get<std::int64_t>(), item["bytes"].get<std::int64_t>(),
              item.value("macs", std::int64_t{0})};
  return {};
}

// Names of both lists, those with most bytes (before, then after) first.
std::vector<std::string> all_names(const Json& before, const Json& after) {
  std::vector<std::string> names;
  for (const Json* list : {&before, &after})
    for (const Json& item : *list)
      if (const auto name = item["name"].get<std::string>();
          std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(name);
  std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    const auto weight = [&](const std::string& name) {
      return std::max(entry_of(before, name).bytes, entry_of(after, name).bytes);
    };
    return weight(a) > weight(b);
  });
  return names;
}

std::string count_or_dash(std::int64_t count) { return count == 0 ? "-" : grouped(count); }
std::string size_or_dash(std::int64_t bytes) {
  return bytes == 0 ? "-" : human_size(static_cast<double>(bytes));
}

void add_two_sided(Document& document, const char* title, const Json& before, const Json& after,
                   bool verbose) {
  Table table{{{title, false, true},
               {"count", true},
               {"", true},
               {"bytes", true},
               {"", true},
               {"share", true}},
              {}};
  std::int64_t total = 0;
  for (const Json& item : after) total += item["bytes"].get<std::int64_t>();
  const std::vector<std::string> names = all_names(before, after);
  std::size_t hidden = 0;
  for (const std::string& name : names) {
    const Entry a = entry_of(before, name), b = entry_of(after, name);
    if (!verbose && table.rows.size() >= short_list && names.size() > short_list + 1) {
      ++hidden;
      continue;
    }
    table.rows.push_back({name, count_or_dash(a.count), count_or_dash(b.count),
                          size_or_dash(a.bytes), size_or_dash(b.bytes),
                          total == 0 || b.bytes == 0 ? std::string("-")
                                                     : percent(static_cast<double>(b.bytes) /
                                                               static_cast<double>(total))});
  }
  table.columns[1].header = "count before";
  table.columns[2].header = "after";
  table.columns[3].header = "bytes before";
  table.columns[4].header = "after";
  if (hidden > 0)
    table.rows.push_back({Cell(fmt::format("{} more (--verbose)", hidden), Tone::dim)});
  document.emplace_back(std::move(table));
}

}  // namespace

double to_number(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "inf") return HUGE_VAL;
  if (value == "-inf") return -HUGE_VAL;
  return std::nan("");
}

std::string dims_text(const Json& dims) {
  std::string text = "[";
  for (const Json& dim : dims)
    text += fmt::format("{}{}", text.size() > 1 ? "," : "", dim.get<std::int64_t>());
  return text + "]";
}

Cell metric_cell(const std::string& metric, const Json& value) {
  const double number = to_number(value["value"]);
  if (metric == "cross_entropy" || metric == "mse") return human_number(number);
  return fmt::format("{:.2f} %", number * 100);
}

Cell interval_cell(const Json& value) {
  if (!value.contains("interval95")) return {};
  const Json& interval = value["interval95"];
  return {
      fmt::format("{:.2f} to {:.2f} %", to_number(interval[0]) * 100, to_number(interval[1]) * 100),
      Tone::dim};
}

Table before_after_table(const Json& report) {
  const Json &a = report["before"], &b = report["after"];
  Table table{{{""}, {"before", true}, {"after", true}, {"change", true}, {"95 % interval", true}},
              {}};
  const auto total = [](const Json& model) { return model["bytes"]["total"].get<double>(); };
  const auto add = [&](const char* what, Cell before, Cell after, Cell change) {
    table.rows.push_back({what, std::move(before), std::move(after), std::move(change), ""});
  };
  add("size", Cell(human_size(total(a)), Tone::strong), Cell(human_size(total(b)), Tone::strong),
      ratio_cell(total(a), total(b)));
  const double external_a = a["bytes"]["external"].get<double>();
  const double external_b = b["bytes"]["external"].get<double>();
  if (external_a > 0 || external_b > 0)
    add("  of it external data", human_size(external_a), human_size(external_b), "");
  const Json &packed_a = a["bytes"]["deflated"], &packed_b = b["bytes"]["deflated"];
  add("  deflated (zlib)", deflated_text(a), deflated_text(b),
      packed_a.is_null() || packed_b.is_null()
          ? Cell()
          : ratio_cell(packed_a.get<double>(), packed_b.get<double>()));
  const double weights_a = a["parameters"].get<double>(), weights_b = b["parameters"].get<double>();
  add("parameters", human_count(weights_a), human_count(weights_b),
      change_cell(weights_a, weights_b));
  const double sparse_a = a["sparsity"].get<double>(), sparse_b = b["sparsity"].get<double>();
  add("  of them zero", percent(sparse_a), percent(sparse_b),
      sparse_a == sparse_b ? Cell("=", Tone::dim)
                           : Cell(change_text((sparse_b - sparse_a) * 100, 1) + " points"));
  add("MACs", macs_text(a), macs_text(b),
      change_cell(a["macs"].get<double>(), b["macs"].get<double>()));
  add("peak activations", activation_text(a), activation_text(b),
      change_cell(a["activation_bytes"].get<double>(), b["activation_bytes"].get<double>()));
  const auto nodes_a = a["nodes"].get<std::int64_t>(), nodes_b = b["nodes"].get<std::int64_t>();
  add("nodes", grouped(nodes_a), grouped(nodes_b),
      nodes_a == nodes_b ? Cell("=", Tone::dim) : Cell(fmt::format("{:+}", nodes_b - nodes_a)));
  const Cell opset_change =
      a["opsets"] == b["opsets"] ? Cell("=", Tone::dim) : Cell(opset_change_text(a, b));
  add("opset", opsets_text(a), opsets_text(b), opset_change);
  if (report.contains("accuracy") && !report["accuracy"].is_null()) {
    add_metric_rows(table, report["accuracy"]["before"], report["accuracy"]["after"]);
    return table;
  }
  table.columns.pop_back();
  for (std::vector<Cell>& row : table.rows) row.pop_back();
  return table;
}

Table model_table(const Json& report) {
  const Json& model = report["model"];
  const Json& bytes = model["bytes"];
  const Json& about = report["interface"];
  Table table{{{""}, {""}}, {}};
  const auto add = [&](const char* what, std::string text) {
    table.rows.push_back({Cell(what, Tone::dim), std::move(text)});
  };
  const auto exact = [](const Json& value) {
    return fmt::format("{} ({} bytes)", human_size(value.get<double>()),
                       grouped(value.get<std::int64_t>()));
  };
  add("size", exact(bytes["total"]));
  if (bytes["external"] != 0) add("  of it external data", exact(bytes["external"]));
  add("  deflated (zlib)", deflated_text(model));
  add("parameters", fmt::format("{} ({})", human_count(model["parameters"].get<double>()),
                                grouped(model["parameters"].get<std::int64_t>())));
  add("  of them zero", percent(model["sparsity"].get<double>()));
  add("MACs", macs_text(model) + open_dims_text(model));
  add("peak activations", activation_text(model) + open_dims_text(model));
  add("nodes", grouped(model["nodes"].get<std::int64_t>()));
  add("opset", opsets_text(model));
  add("IR version", fmt::format("{}", model["ir_version"].get<std::int64_t>()));
  const auto producer = about["producer"]["name"].get<std::string>();
  if (!producer.empty())
    add("producer", producer + " " + about["producer"]["version"].get<std::string>());
  if (!about["functions"].empty()) add("functions", fmt::format("{}", about["functions"].size()));
  for (const auto& [key, value] : about["metadata"].items())
    table.rows.push_back({Cell("metadata " + key, Tone::dim), value.get<std::string>()});
  add("sha256", model["sha256"].get<std::string>());
  return table;
}

Table interface_table(const Json& section) {
  Table table{{{""}, {"name", false, true}, {"type"}}, {}};
  for (const char* side : {"inputs", "outputs"})
    for (const Json& value : section[side])
      table.rows.push_back(
          {Cell(side == std::string_view("inputs") ? "input" : "output", Tone::dim),
           value["name"].get<std::string>(), value["type"].get<std::string>()});
  return table;
}

void add_sizes(Document& document, const Json& report, bool verbose) {
  const Json &before = report["before"], &after = report["after"];
  document.emplace_back(Heading{"Weights by type"});
  add_two_sided(document, "type", before["by_type"], after["by_type"], verbose);
  document.emplace_back(Heading{"Weights by operator"});
  add_two_sided(document, "operator", before["by_operator"], after["by_operator"], verbose);
}

void add_operator_table(Document& document, const Json& model, bool verbose) {
  Table table{{{"operator", false, true},
               {"count", true},
               {"weights", true},
               {"MACs", true},
               {"share", true}},
              {}};
  const double total = std::max(model["tensor_bytes"].get<double>(), 1.0);
  std::size_t hidden = 0;
  for (const Json& item : model["by_operator"]) {
    if (!verbose && table.rows.size() >= short_list &&
        model["by_operator"].size() > short_list + 1) {
      ++hidden;
      continue;
    }
    const auto bytes = item["bytes"].get<std::int64_t>();
    const auto macs = item["macs"].get<std::int64_t>();
    table.rows.push_back({item["name"].get<std::string>(),
                          grouped(item["count"].get<std::int64_t>()), size_or_dash(bytes),
                          macs == 0 ? "-" : human_count(static_cast<double>(macs)),
                          bytes == 0 ? "-" : percent(static_cast<double>(bytes) / total)});
  }
  if (hidden > 0)
    table.rows.push_back({Cell(fmt::format("{} more (--verbose)", hidden), Tone::dim)});
  document.emplace_back(Heading{"By operator"});
  document.emplace_back(std::move(table));
}

void add_type_table(Document& document, const Json& model) {
  Table table{{{"type"}, {"tensors", true}, {"bytes", true}, {"share", true}}, {}};
  const double total = std::max(model["tensor_bytes"].get<double>(), 1.0);
  for (const Json& item : model["by_type"])
    table.rows.push_back(
        {item["name"].get<std::string>(), grouped(item["count"].get<std::int64_t>()),
         human_size(item["bytes"].get<double>()), percent(item["bytes"].get<double>() / total)});
  document.emplace_back(Heading{"By type"});
  document.emplace_back(std::move(table));
}

void add_tensor_table(Document& document, const Json& model) {
  const Json& tensors = model["largest_tensors"];
  if (tensors.empty()) return;
  Table table{{{"tensor", false, true},
               {"type"},
               {"shape"},
               {"bytes", true},
               {"zeros", true},
               {"read by", false, true}},
              {}};
  for (const Json& item : tensors) {
    const double elements = std::max(item["elements"].get<double>(), 1.0);
    table.rows.push_back({item["name"].get<std::string>(), item["type"].get<std::string>(),
                          dims_text(item["dims"]), human_size(item["bytes"].get<double>()),
                          percent(item["zeros"].get<double>() / elements),
                          item["op"].get<std::string>()});
  }
  document.emplace_back(Heading{fmt::format("Largest tensors ({} of {})", tensors.size(),
                                            model["tensor_count"].get<std::size_t>())});
  document.emplace_back(std::move(table));
}

}  // namespace onnxpress
