#include "passes/common/selected_number.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace onnxpress {

SelectedNumber SelectedNumber::parse(std::string_view option, std::string_view text, double otherwise, double min,
                                     double max) {
  SelectedNumber result;
  result.general_ = otherwise;
  const auto number = [&](std::string_view digits) {
    double value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool is_number = error == std::errc() && end == digits.data() + digits.size() && std::isfinite(value);
    require(is_number && value >= min && value <= max,
            "option '{}': expected a number from {} to {}, or SELECTOR=NUMBER, separated by ';', found '{}'", option,
            min, max, digits);
    return value;
  };
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    const std::string_view part = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t equals = part.rfind('=');
    if (equals == std::string_view::npos) {
      result.general_ = number(part);
      result.is_given_ = true;
      continue;
    }
    require(equals > 0, "option '{}': expected SELECTOR=NUMBER, found '{}'", option, part);
    const std::string_view selector = part.substr(0, equals);
    result.rules_.push_back({Selector(selector), std::string(selector), number(part.substr(equals + 1))});
  }
  return result;
}

double SelectedNumber::of(const Value& tensor) const {
  double value = general_;
  for (const Rule& rule : rules_)
    if (selects(rule.selector, tensor)) value = rule.number;
  return value;
}

void SelectedNumber::require_all_match(const Model& model) const {
  for (const Rule& rule : rules_) rule.selector.require_all_match(model);
}

bool selects(const Selector& selector, const Value& tensor) {
  return std::ranges::any_of(tensor.uses(), [&](const Use& use) { return selector.matches(*use.node, tensor); });
}

}  // namespace onnxpress
