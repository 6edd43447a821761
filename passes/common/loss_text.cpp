#include "passes/common/loss_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "graph/base/error.h"

namespace onnxpress {
namespace {

// What each loss is called, other names it goes by, and its settings.
struct Known {
  std::string_view name;
  std::vector<std::string_view> also;
  std::vector<std::string> settings;
  std::size_t most_values;
};

const std::vector<Known>& known_losses() {
  static const std::vector<Known> losses = {
      {"auto", {}, {}, 0},
      {"cross_entropy", {"ce"}, {"target", "label_smoothing", "ignore"}, 1},
      {"binary_cross_entropy", {"bce"}, {"target", "reduction"}, 1},
      {"mse", {}, {"target", "reduction"}, 1},
      {"l1", {"mae"}, {"target", "reduction"}, 1},
      {"huber", {}, {"target", "reduction", "delta"}, 1},
      {"kl", {}, {"target"}, 1},
      {"ctc", {}, {"target", "lengths", "target_lengths", "blank", "batch_first"}, 1},
      {"gaussian_kl", {}, {}, 2},
      {"elbo", {}, {"target", "beta", "likelihood"}, 3},
  };
  return losses;
}

// What the number of a setting may be.
struct Range {
  std::string_view setting;
  double least, most;
  bool is_whole;
  std::string_view expected;
};

constexpr Range ranges[] = {{"beta", 0, 1e30, false, "a number of at least 0"},
                            {"delta", 1e-30, 1e30, false, "a number above 0"},
                            {"label_smoothing", 0, 0.999, false, "a number from 0 to 0.999"},
                            {"ignore", -1e15, 1e15, true, "a whole number"},
                            {"blank", 0, 1e15, true, "a whole number of at least 0"}};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::optional<double> number_of(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Parts between `separator` outside parentheses.
std::vector<std::string_view> parts_of(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : separator;
    if (c == '(') ++depth;
    if (c == ')') --depth;
    if (i < text.size() && (c != separator || depth > 0)) continue;
    parts.push_back(trimmed(text.substr(begin, i - begin)));
    begin = i + 1;
  }
  return parts;
}

const Known& find_known(std::string_view name) {
  std::vector<std::string> names;
  for (const Known& known : known_losses()) {
    if (known.name == name || std::ranges::find(known.also, name) != known.also.end()) return known;
    names.emplace_back(known.name);
  }
  const std::string near = nearest_name(name, names);
  fail("unknown loss '{}'; {}", name,
       near.empty() ? fmt::format("there are {}", fmt::join(names, ", ")) : fmt::format("did you mean '{}'?", near));
}

void add_argument(LossSpec& spec, const Known& known, std::string_view argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string_view::npos) {
    require(!argument.empty(), "loss '{}': expected the name of an output, found nothing", spec.name);
    spec.values.emplace_back(argument);
    return;
  }
  const std::string setting(trimmed(argument.substr(0, equals)));
  if (std::ranges::find(known.settings, setting) == known.settings.end()) {
    const std::string near = nearest_name(setting, known.settings);
    fail("loss '{}' has no setting '{}'{}", spec.name, setting,
         near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
  const std::string_view text = trimmed(argument.substr(equals + 1));
  const auto* const range = std::ranges::find(ranges, setting, &Range::setting);
  if (range != std::end(ranges)) {
    const auto value = number_of(text);
    const bool fits = value && *value >= range->least && *value <= range->most &&
                      (!range->is_whole || *value == std::floor(*value));
    require(fits, "loss '{}': {}: expected {}, found '{}'", spec.name, setting, range->expected, text);
  }
  spec.settings[setting] = text;
}

LossSpec parse_term(std::string_view text) {
  LossSpec spec;
  std::string_view name = text.substr(0, std::min(text.find('('), text.size()));
  const std::string_view rest = text.substr(name.size());
  if (const std::size_t times = name.find('*'); times != std::string_view::npos) {
    const auto weight = number_of(trimmed(name.substr(0, times)));
    require(weight.has_value(), "expected NUMBER*LOSS, found '{}'", text);
    require(std::isfinite(*weight) && *weight > 0, "expected a weight above 0, found '{}'", text);
    spec.weight = *weight;
    name.remove_prefix(times + 1);
  }
  const Known& known = find_known(trimmed(name));
  spec.name = known.name;
  if (!rest.empty()) {
    require(rest.back() == ')', "loss '{}': expected ')' at the end, found '{}'", spec.name, rest);
    for (const std::string_view argument : parts_of(rest.substr(1, rest.size() - 2), ','))
      add_argument(spec, known, argument);
  }
  require(spec.values.size() <= known.most_values, "loss '{}': expected at most {} value{}, found {}", spec.name,
          known.most_values, known.most_values == 1 ? "" : "s", spec.values.size());
  const bool by_name = spec.name == "gaussian_kl" || (spec.name == "elbo" && !spec.values.empty());
  require(!by_name || spec.values.size() == known.most_values, "loss '{}': expected {}, found {} names", spec.name,
          spec.name == "elbo" ? "(reconstruction, mean, log_variance)" : "(mean, log_variance)", spec.values.size());
  return spec;
}

}  // namespace

double LossSpec::number(const std::string& setting, double otherwise) const {
  const auto found = settings.find(setting);
  if (found == settings.end()) return otherwise;
  const auto value = number_of(found->second);
  require(value.has_value(), "loss '{}': {}: expected a number, found '{}'", name, setting, found->second);
  return *value;
}

std::string LossSpec::text(const std::string& setting, const std::string& otherwise) const {
  const auto found = settings.find(setting);
  return found == settings.end() ? otherwise : found->second;
}

std::vector<LossSpec> parse_losses(std::string_view text) {
  std::vector<LossSpec> specs;
  for (const std::string_view term : parts_of(text, '+')) {
    require(!term.empty(), "expected a loss, found '{}'", text);
    specs.push_back(parse_term(term));
  }
  return specs;
}

}  // namespace onnxpress
