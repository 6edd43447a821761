#include "passes/quantize/mse_grid.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace onnxpress {
namespace {

constexpr std::int64_t most_events = 1 << 14;  // scales at which a code changes that are all looked at
constexpr int most_turns = 12;                 // of rounding and least squares
constexpr int clipping_thresholds = 32;
constexpr float smallest_threshold = 0.15F;    // of the largest value

// To the nearest integer, ties to even, of a number of less than 2^22; the compiler makes vectors of it.
float nearest(float x) {
  constexpr float shift = 0x1.8p23F;
  return (x + shift) - shift;
}

// Sums over values rounded with a scale: error = square - 2 s product + s^2 level.
struct Sums {
  double product = 0;  // of value and level
  double level = 0;    // of levels squared

  float best_scale() const { return level > 0 ? static_cast<float>(product / level) : 0.0F; }
};

class Search {
 public:
  Search(std::span<const float> values, std::span<const float> importance, const ScaleRules& rules)
      : values_(values), importance_(importance), rules_(rules) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      low_ = std::min(low_, values[i]);
      high_ = std::max(high_, values[i]);
    }
  }

  QuantizationParameters run() {
    const QuantizedType& type = rules_.type;
    if (low_ == high_) return min_max_parameters(0, 0, type);
    if (type.symmetric) {
      try_zero_point(0);
      return best_;
    }
    const std::int64_t covering = min_max_parameters(low_, high_, type).zero_point;
    const std::int64_t reach = type.bits <= 4 ? type.max() - type.min() : 3;
    for (std::int64_t zero = std::max(type.min(), covering - reach); zero <= std::min(type.max(), covering + reach);
         ++zero)
      try_zero_point(zero);
    return best_;
  }

 private:
  double weight(std::size_t i) const { return importance_.empty() ? 1.0 : static_cast<double>(importance_[i]); }

  void try_zero_point(std::int64_t zero) {
    zero_ = zero;
    below_ = static_cast<float>(zero - rules_.type.min());
    above_ = static_cast<float>(rules_.type.max() - zero);
    // The scale that clips nothing that this zero point can reach.
    float covering = 0;
    if (below_ > 0) covering = std::max(covering, -low_ / below_);
    if (above_ > 0) covering = std::max(covering, high_ / above_);
    if (covering <= 0) return;
    if (rules_.power_of_two) {
      const float largest = std::exp2(std::ceil(std::log2(covering)));
      for (int halvings = 0; halvings < 8; ++halvings) try_scale(std::ldexp(largest, -halvings));
      return;
    }
    const auto events = static_cast<std::int64_t>(values_.size()) * static_cast<std::int64_t>(std::max(below_, above_));
    if (events <= most_events)
      try_scale(exact_scale());
    else
      search(covering);
  }

  // The scale of least error: with every scale below the last one at which some code grows, sums change
  // by what that code adds.
  float exact_scale() {
    struct Event {
      float scale;
      std::size_t index;
    };
    std::vector<Event> events;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const float size = std::abs(values_[i]);
      const float levels = values_[i] < 0 ? below_ : above_;
      for (float level = 1; size > 0 && level <= levels; ++level) events.push_back({size / (level - 0.5F), i});
    }
    std::ranges::sort(events, [](const Event& a, const Event& b) {
      return a.scale != b.scale ? a.scale > b.scale : a.index < b.index;
    });
    std::vector<int> levels(values_.size(), 0);
    Sums sums;
    double best = 0;
    float found = 0;
    for (const Event& event : events) {
      const int level = ++levels[event.index];
      const double factor = weight(event.index);
      sums.product += factor * static_cast<double>(std::abs(values_[event.index]));
      sums.level += factor * (2 * level - 1);
      if (sums.level <= 0) continue;
      const double gain = sums.product * sums.product / sums.level;
      if (gain <= best) continue;
      best = gain;
      found = sums.best_scale();
    }
    return found;
  }

  void search(float covering) {
    const float ratio = std::pow(smallest_threshold, 1.0F / (clipping_thresholds - 1));
    std::array<std::pair<double, float>, clipping_thresholds> tried;
    float scale = covering;
    for (auto& candidate : tried) {
      candidate = {error(scale, nullptr), scale};
      scale *= ratio;
    }
    std::ranges::sort(tried);
    for (std::size_t i = 0; i < 3; ++i) {
      float settled = tried[i].second;
      for (int turn = 0; turn < most_turns; ++turn) {
        Sums sums;
        error(settled, &sums);
        const float next = sums.best_scale();
        if (next <= 0 || next == settled) break;
        settled = next;
      }
      try_scale(settled);
    }
  }

  double error(float scale, Sums* sums) const {
    double total = 0;
    const float inverse = 1 / scale;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const float level = nearest(std::clamp(values_[i] * inverse, -below_, above_));
      const double rest = static_cast<double>(values_[i] - level * scale);
      total += weight(i) * rest * rest;
      if (!sums) continue;
      sums->product += weight(i) * static_cast<double>(values_[i]) * static_cast<double>(level);
      sums->level += weight(i) * static_cast<double>(level) * static_cast<double>(level);
    }
    return total;
  }

  void try_scale(float scale) {
    if (!(scale > 0)) return;
    scale = rules_.allowed(scale, zero_);
    const double found = error(scale, nullptr);
    if (found >= least_) return;
    least_ = found;
    best_ = {.scale = scale, .zero_point = zero_};
  }

  std::span<const float> values_, importance_;
  const ScaleRules& rules_;
  float low_ = 0, high_ = 0;
  std::int64_t zero_ = 0;
  float below_ = 0, above_ = 0;  // levels on either side of zero
  double least_ = std::numeric_limits<double>::infinity();
  QuantizationParameters best_;
};

}  // namespace

float ScaleRules::allowed(float scale, std::int64_t zero_point) const {
  if (power_of_two) scale = std::exp2(std::round(std::log2(scale)));
  return storable_scale({.scale = scale, .zero_point = zero_point}, type, stored);
}

QuantizationParameters least_error_parameters(std::span<const float> values, std::span<const float> importance,
                                              const ScaleRules& rules) {
  return Search(values, importance, rules).run();
}

std::vector<QuantizationParameters> choose_by_group(ThreadPool& pool, const Dims& dims,
                                                    const Granularity& granularity, std::span<const float> values,
                                                    std::span<const float> importance,
                                                    const ChooseParameters& choose) {
  const std::int64_t groups = element_count(granularity.scale_dims(dims));
  // Values group by group.
  std::vector<std::int64_t> ends(static_cast<std::size_t>(groups) + 1, 0);
  for_each_scale_run(dims, granularity, [&](std::int64_t group, std::int64_t, std::int64_t count) {
    ends[static_cast<std::size_t>(group) + 1] += count;
  });
  for (std::size_t i = 1; i < ends.size(); ++i) ends[i] += ends[i - 1];
  std::vector<std::int64_t> next(ends.begin(), ends.end() - 1);
  std::vector<float> sorted(values.size()), sorted_importance(importance.size());
  for_each_scale_run(dims, granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    std::int64_t& position = next[static_cast<std::size_t>(group)];
    std::copy_n(values.begin() + begin, count, sorted.begin() + position);
    if (!importance.empty()) std::copy_n(importance.begin() + begin, count, sorted_importance.begin() + position);
    position += count;
  });
  std::vector<QuantizationParameters> parameters(static_cast<std::size_t>(groups));
  pool.parallel_for(groups, std::max<std::int64_t>(1, 4096 * groups / std::max<std::int64_t>(1, std::ssize(values))),
                    [&](std::int64_t first, std::int64_t last) {
                      for (auto g = static_cast<std::size_t>(first); g < static_cast<std::size_t>(last); ++g) {
                        const auto begin = static_cast<std::size_t>(ends[g]);
                        const auto count = static_cast<std::size_t>(ends[g + 1]) - begin;
                        parameters[g] = choose(std::span(sorted).subspan(begin, count),
                                               importance.empty() ? std::span<const float>()
                                                                  : std::span(sorted_importance).subspan(begin, count));
                      }
                    });
  return parameters;
}

std::optional<WeightGrid> chosen_grid(ThreadPool& pool, const Tensor& weight, const Granularity& granularity,
                                      const ScaleRules& rules, const ChooseParameters& choose) {
  const std::vector<float> values = weight.to_floats();
  if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) return std::nullopt;
  return WeightGrid{.type = rules.type,
                    .granularity = granularity,
                    .scale_type = rules.stored,
                    .parameters = choose_by_group(pool, weight.dims(), granularity, values, {}, choose)};
}

}  // namespace onnxpress
