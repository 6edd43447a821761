#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "passes/core/pass.h"
#include "passes/core/pipeline.h"

namespace onnxpress {
namespace {

using Kind = OptionSpec::Kind;

constexpr double no_limit = 1e300;

std::vector<std::string> split_choices(std::string_view choices) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= choices.size();) {
    const std::size_t end = std::min(choices.find('|', begin), choices.size());
    parts.emplace_back(choices.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_number(std::string_view text) {
  const bool is_percent = text.ends_with('%');
  if (is_percent) text.remove_suffix(1);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return is_percent ? value / 100 : value;
}

std::optional<bool> parse_flag(std::string_view text) {
  if (text == "true" || text == "yes" || text == "1") return true;
  if (text == "false" || text == "no" || text == "0") return false;
  return std::nullopt;
}

std::string describe_range(std::string_view what, const OptionSpec& spec) {
  const bool has_min = spec.min > -no_limit;
  const bool has_max = spec.max < no_limit;
  if (has_min && has_max) return fmt::format("{} from {} to {}", what, spec.min, spec.max);
  if (has_min) return fmt::format("{} of at least {}", what, spec.min);
  if (has_max) return fmt::format("{} of at most {}", what, spec.max);
  return std::string(what);
}

// What is expected instead of `text`, or nothing when it is a value of the option.
std::optional<std::string> objection(const OptionSpec& spec, std::string_view text) {
  const auto in_range = [&](double value) { return value >= spec.min && value <= spec.max; };
  switch (spec.kind) {
    case Kind::integer: {
      const auto value = parse_integer(text);
      if (value && in_range(static_cast<double>(*value))) return std::nullopt;
      return describe_range("an integer", spec);
    }
    case Kind::number: {
      const auto value = parse_number(text);
      if (value && in_range(*value)) return std::nullopt;
      return describe_range("a number", spec);
    }
    case Kind::flag:
      if (parse_flag(text)) return std::nullopt;
      return "true or false";
    case Kind::choice: {
      const std::vector<std::string> choices = split_choices(spec.choices);
      if (std::ranges::find(choices, text) != choices.end()) return std::nullopt;
      return fmt::format("one of {}", fmt::join(choices, ", "));
    }
    case Kind::text:
    case Kind::selector:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::string_view name(OptionSpec::Kind kind) {
  switch (kind) {
    case Kind::integer:
      return "integer";
    case Kind::number:
      return "number";
    case Kind::flag:
      return "flag";
    case Kind::text:
      return "text";
    case Kind::choice:
      return "choice";
    case Kind::selector:
      return "selector";
  }
  return "";
}

std::string_view name(Effect effect) {
  switch (effect) {
    case Effect::exact:
      return "exact";
    case Effect::rounding:
      return "rounding";
    case Effect::approximate:
      return "approximate";
    case Effect::lossy:
      return "lossy";
  }
  return "";
}

std::string_view meaning(Effect effect) {
  switch (effect) {
    case Effect::exact:
      return "outputs stay bit for bit what they were, before and after computed by the same "
             "kernels (the fast ones; the plain reference kernels where those regroup sums)";
    case Effect::rounding:
      return "outputs differ by at most 1e-5 of their range and a few units in the last place, or "
             "by twice what the order of summation makes of the model as it was: floating-point "
             "operations are regrouped, nothing is approximated";
    case Effect::approximate:
      return "outputs keep a signal-to-noise ratio that the pass states";
    case Effect::lossy:
      return "outputs may differ by anything; it is measured and reported";
  }
  return "";
}

std::string_view name(Needs needs) {
  switch (needs) {
    case Needs::nothing:
      return "nothing";
    case Needs::calibration:
      return "calibration";
    case Needs::optional_calibration:
      return "calibration (optional)";
    case Needs::training:
      return "training";
    case Needs::teacher:
      return "teacher";
  }
  return "";
}

Options::Options(std::string_view pass, std::span<const OptionSpec> specs,
                 const std::map<std::string, std::string>& given)
    : pass_(pass), specs_(specs) {
  std::vector<std::string> names;
  for (const OptionSpec& spec : specs) {
    names.emplace_back(spec.name);
    values_.emplace(spec.name, spec.default_value);
  }
  for (const auto& [key, text] : given) {
    const auto spec = std::ranges::find(specs, key, &OptionSpec::name);
    if (spec == specs.end()) {
      if (names.empty()) fail("pass '{}' has no options, found '{}'", pass, key);
      const std::string near = nearest_name(key, names);
      fail("pass '{}': unknown option '{}'; {}", pass, key,
           near.empty() ? fmt::format("it has {}", fmt::join(names, ", "))
                        : fmt::format("did you mean '{}'?", near));
    }
    if (const auto expected = objection(*spec, text))
      fail("pass '{}': option '{}': expected {}, found '{}'", pass, key, *expected, text);
    values_[key] = text;
    given_[key] = true;
  }
}

const std::string& Options::value(std::string_view name, std::initializer_list<Kind> kinds) const {
  const auto spec = std::ranges::find(specs_, name, &OptionSpec::name);
  require(spec != specs_.end(), "pass '{}' declares no option '{}'", pass_, name);
  require(std::ranges::find(kinds, spec->kind) != kinds.end(),
          "pass '{}': option '{}' is of kind {}, not {}", pass_, name, onnxpress::name(spec->kind),
          onnxpress::name(*kinds.begin()));
  return values_.find(name)->second;
}

std::int64_t Options::integer(std::string_view name) const {
  const auto parsed = parse_integer(value(name, {Kind::integer}));
  require(parsed.has_value(), "pass '{}': option '{}' has no value", pass_, name);
  return *parsed;
}

double Options::number(std::string_view name) const {
  const auto parsed = parse_number(value(name, {Kind::number}));
  require(parsed.has_value(), "pass '{}': option '{}' has no value", pass_, name);
  return *parsed;
}

bool Options::flag(std::string_view name) const {
  const auto parsed = parse_flag(value(name, {Kind::flag}));
  require(parsed.has_value(), "pass '{}': option '{}' has no value", pass_, name);
  return *parsed;
}

const std::string& Options::text(std::string_view name) const {
  return value(name, {Kind::text, Kind::choice, Kind::selector});
}

bool Options::given(std::string_view name) const { return given_.find(name) != given_.end(); }

const std::string& Options::given_text(std::string_view name) const {
  return value(name,
               {Kind::text, Kind::integer, Kind::number, Kind::flag, Kind::choice, Kind::selector});
}

std::string Options::to_text() const {
  std::string text;
  for (const OptionSpec& spec : specs_) {
    if (!given(spec.name)) continue;
    if (!text.empty()) text += ',';
    text += fmt::format("{}={}", spec.name, quote_option_value(values_.find(spec.name)->second));
  }
  return text;
}

Json Options::to_json() const {
  Json json = Json::object();
  for (const OptionSpec& spec : specs_) {
    const std::string& text = values_.find(spec.name)->second;
    Json& entry = json[std::string(spec.name)];
    if (text.empty() && spec.kind != Kind::text && spec.kind != Kind::selector)
      entry = nullptr;
    else if (spec.kind == Kind::integer)
      entry = integer(spec.name);
    else if (spec.kind == Kind::number)
      entry = number(spec.name);
    else if (spec.kind == Kind::flag)
      entry = flag(spec.name);
    else
      entry = text;
  }
  return json;
}

}  // namespace onnxpress
