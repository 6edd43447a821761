#include "tools/units.h"

#include <array>
#include <charconv>
#include <cmath>

#include "graph/base/error.h"

namespace onnxpress {

namespace {

// Reads a leading decimal number off `text`; false when there is none.
bool take_number(std::string_view& text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Three or four significant digits, without an exponent.
std::string significant(double value) {
  const double size = std::abs(value);
  return size >= 100 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value);
}

std::string scaled(double value, const std::array<const char*, 5>& units) {
  std::size_t unit = 0;
  while (std::abs(value) >= 999.95 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f}{}", value, units[0])
                   : fmt::format("{}{}", significant(value), units[unit]);
}

}  // namespace

std::int64_t parse_size(std::string_view text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr std::array<Unit, 13> units{{{"", 1},
                                        {"B", 1},
                                        {"KB", 1e3},
                                        {"kB", 1e3},
                                        {"MB", 1e6},
                                        {"GB", 1e9},
                                        {"TB", 1e12},
                                        {"KiB", 1024.0},
                                        {"MiB", 1024.0 * 1024},
                                        {"GiB", 1024.0 * 1024 * 1024},
                                        {"TiB", 1024.0 * 1024 * 1024 * 1024},
                                        {"K", 1e3},
                                        {"M", 1e6}}};
  std::string_view rest = trimmed(text);
  double value = 0;
  if (take_number(rest, value) && value >= 0) {
    rest = trimmed(rest);
    for (const Unit& unit : units)
      if (rest == unit.name && value * unit.bytes < 9e18)
        return static_cast<std::int64_t>(std::floor(value * unit.bytes));
  }
  fail("expected a size such as 500KB or 2MiB, found '{}'", text);
}

double parse_percent(std::string_view text) {
  std::string_view rest = trimmed(text);
  double value = 0;
  if (take_number(rest, value)) {
    rest = trimmed(rest);
    if (rest.empty() || rest == "%") return value;
  }
  fail("expected a percentage such as 0.5%, found '{}'", text);
}

double parse_number(std::string_view text) {
  std::string_view rest = trimmed(text);
  double value = 0, divisor = 1;
  if (take_number(rest, value)) {
    if (rest.empty()) return value;
    if (rest.front() == '/') {
      rest.remove_prefix(1);
      if (take_number(rest, divisor) && rest.empty() && divisor != 0) return value / divisor;
    }
  }
  fail("expected a number such as 0.25 or 1/255, found '{}'", text);
}

std::vector<double> parse_numbers(std::string_view text) {
  std::vector<double> values;
  while (true) {
    const std::size_t comma = text.find(',');
    values.push_back(parse_number(text.substr(0, comma)));
    if (comma == std::string_view::npos) return values;
    text.remove_prefix(comma + 1);
  }
}

std::vector<std::int64_t> parse_dims(std::string_view text) {
  std::vector<std::int64_t> dims;
  std::string_view rest = trimmed(text);
  while (!rest.empty()) {
    std::int64_t dim = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), dim);
    if (error != std::errc() || dim < 0) break;
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    dims.push_back(dim);
    if (rest.empty()) return dims;
    if (rest.front() != 'x') break;
    rest.remove_prefix(1);
  }
  fail("expected dims such as 1x3x224x224, found '{}'", text);
}

std::pair<std::string, std::string> parse_assignment(std::string_view text) {
  const std::size_t equals = text.rfind('=');
  require(equals != std::string_view::npos && equals > 0 && equals + 1 < text.size(),
          "expected NAME=VALUE, found '{}'", text);
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

std::string human_size(double bytes) { return scaled(bytes, {" B", " KB", " MB", " GB", " TB"}); }

std::string human_count(double count) { return scaled(count, {"", " k", " M", " G", " T"}); }

std::string grouped(std::int64_t number) {
  std::string digits = fmt::format("{}", number);
  const std::size_t first = number < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string human_seconds(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{} ms", significant(seconds * 1e3));
  if (seconds < 120) return fmt::format("{} s", significant(seconds));
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  return fmt::format("{} min {} s", whole / 60, whole % 60);
}

std::string human_number(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (value == std::floor(value) && std::abs(value) < 1e9) return fmt::format("{:.0f}", value);
  const double size = std::abs(value);
  return size < 1e-3 || size >= 1e6 ? fmt::format("{:.2e}", value) : fmt::format("{:.4g}", value);
}

}  // namespace onnxpress
