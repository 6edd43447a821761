#include "passes/quantize/softmax_range.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string_view>

namespace onnxpress {
namespace {

constexpr float masked_distance = 10;
constexpr double empty_stretch = 32;
constexpr double widest_bin = 4;         // that says enough of where values end
constexpr float choice_distance = 1000;  // Where chooses between scores and a mask this far below
constexpr int most_steps = 8;

bool moves(const Node& node) {
  static constexpr std::string_view movements[] = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"};
  return std::ranges::any_of(movements, [&](std::string_view op) { return node.is(op); });
}

std::optional<float> constant_floor(const Tensor& tensor) {
  std::vector<float> values = tensor.to_floats();
  if (values.empty() || std::ranges::any_of(values, [](float v) { return std::isnan(v); })) return std::nullopt;
  std::ranges::sort(values, std::greater<>());
  for (std::size_t i = 1; i < values.size(); ++i)
    if (static_cast<double>(values[i - 1]) - static_cast<double>(values[i]) >= empty_stretch) return values[i - 1];
  return values.back();
}

std::optional<float> histogram_floor(const ValueStatistics& statistics) {
  const Histogram& histogram = statistics.histogram;
  std::size_t lowest = histogram.counts.size();
  for (std::size_t i = histogram.counts.size(); i-- > 0;) {
    if (histogram.counts[i] == 0) continue;
    if (lowest < histogram.counts.size() && static_cast<double>(lowest - i - 1) * histogram.width() >= empty_stretch) break;
    lowest = i;
  }
  if (lowest == histogram.counts.size()) return std::nullopt;
  const double edge = histogram.edge(lowest);
  if (histogram.width() <= widest_bin) return std::max(statistics.min, static_cast<float>(edge));
  // One bin of nothing but zeros: a mask that adds nothing elsewhere.
  const bool only_zeros = edge == 0 && histogram.counts[lowest] == statistics.zeros && statistics.max == 0;
  return only_zeros ? std::optional(0.0F) : std::nullopt;
}

std::optional<float> floor_of(const Value& value, const Calibration& calibration, int steps) {
  if (value.constant()) return constant_floor(*value.constant());
  if (const ValueStatistics* statistics = calibration.find(value); statistics && statistics->count > 0)
    if (const std::optional<float> found = histogram_floor(*statistics)) return found;
  const Node* maker = value.producer();
  if (!maker || steps == 0) return std::nullopt;
  const auto operand = [&](std::size_t i) { return floor_of(*maker->input(i), calibration, steps - 1); };
  if (moves(*maker)) return operand(0);
  if (maker->is("Add")) {
    const std::optional<float> first = operand(0), second = operand(1);
    return first && second ? std::optional(*first + *second) : std::nullopt;
  }
  if (!maker->is("Where")) return std::nullopt;
  const std::optional<float> first = operand(1), second = operand(2);
  if (!first || !second) return std::nullopt;
  const auto [low, high] = std::minmax(*first, *second);
  return high - low > choice_distance ? high : low;
}

void collect_operands(const Value& value, std::set<std::string, std::less<>>& keys, int steps) {
  const Node* maker = value.producer();
  if (!maker || steps == 0 || !(moves(*maker) || maker->is("Add") || maker->is("Where"))) return;
  for (std::size_t i = maker->is("Where") ? 1 : 0; i < maker->input_count(); ++i) {
    const Value* operand = maker->input(i);
    if (!operand || operand->is_constant() || (moves(*maker) && i > 0)) continue;
    keys.insert(calibration_key(*operand));
    collect_operands(*operand, keys, steps - 1);
  }
}

std::optional<float> largest(const Value& value, const Calibration& calibration) {
  if (value.constant()) {
    const std::vector<float> values = value.constant()->to_floats();
    return values.empty() ? std::nullopt : std::optional(*std::ranges::max_element(values));
  }
  const ValueStatistics* statistics = calibration.find(value);
  return statistics && statistics->count > 0 ? std::optional(statistics->max) : std::nullopt;
}

// All elements of the value below are masked; nothing: it is unknown, or something else reads it.
std::optional<float> cut(const Value& value, const Calibration& calibration, int steps) {
  if (value.is_output() || value.is_unused() || steps == 0) return std::nullopt;
  float lowest = std::numeric_limits<float>::infinity();
  for (const Use& use : value.uses()) {
    std::optional<float> found;
    if (use.node->is("Softmax")) {
      found = floor_of(value, calibration, most_steps);
      if (found) *found -= masked_distance;
    } else if (moves(*use.node) && use.index == 0) {
      found = cut(*use.node->output(0), calibration, steps - 1);
    } else if (use.node->is("Add")) {
      found = cut(*use.node->output(0), calibration, steps - 1);
      const std::optional<float> most = largest(*use.node->input(1 - use.index), calibration);
      found = found && most ? std::optional(*found - *most) : std::nullopt;
    }
    if (!found) return std::nullopt;
    lowest = std::min(lowest, *found);
  }
  return lowest;
}

}  // namespace

std::set<std::string, std::less<>> softmax_operands(const StaticPlan& plan) {
  std::set<std::string, std::less<>> keys;
  for (const PlannedNode& planned : plan.nodes)
    if (planned.on_codes && planned.node->is("Softmax")) collect_operands(*planned.node->input(0), keys, most_steps);
  return keys;
}

std::vector<std::optional<std::pair<float, float>>> unmasked_ranges(const StaticPlan& plan, const Calibration& calibration) {
  std::vector<std::optional<std::pair<float, float>>> ranges(plan.groups);
  std::vector<bool> is_open(plan.groups, true);
  for (const CodedValue& value : plan.values) {
    if (!value.is_source || !is_open[value.group]) continue;
    const ValueStatistics* statistics = calibration.find(*value.value);
    const std::optional<float> low = cut(*value.value, calibration, most_steps);
    if (!statistics || statistics->count == 0 || !low || statistics->min >= *low) {
      is_open[value.group] = false;
      ranges[value.group].reset();
      continue;
    }
    auto& range = ranges[value.group];
    range = range ? std::pair(std::min(range->first, *low), std::max(range->second, statistics->max)) : std::pair(*low, statistics->max);
  }
  return ranges;
}

std::map<std::string, float, std::less<>> masked_constants(const StaticPlan& plan, const Calibration& calibration) {
  std::map<std::string, float, std::less<>> masked;
  for (const PlannedNode& planned : plan.nodes) {
    if (!planned.on_codes || !planned.node->is("Add")) continue;
    for (const std::size_t i : planned.use.data) {
      const Value& value = *planned.node->input(i);
      if (!value.constant()) continue;
      if (const std::optional<float> low = cut(value, calibration, most_steps)) masked.emplace(calibration_key(value), *low);
    }
  }
  return masked;
}

}  // namespace onnxpress
