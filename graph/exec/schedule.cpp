#include "graph/exec/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace onnxpress {
namespace {

using Kind = Schedule::Kind;

constexpr std::array names = {
    std::pair{Kind::constant, std::string_view("constant")},
    std::pair{Kind::step, std::string_view("step")},
    std::pair{Kind::exponential, std::string_view("exponential")},
    std::pair{Kind::cosine, std::string_view("cosine")},
    std::pair{Kind::one_cycle, std::string_view("one_cycle")},
};

// From `high` to `low` along half a cosine, `part` in [0, 1].
double anneal(double high, double low, double part) {
  return low + (high - low) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

}  // namespace

double Schedule::at(std::int64_t index) const {
  constexpr double one_cycle_start = 25;  // the first rate is this many times smaller
  const double since = static_cast<double>(std::max<std::int64_t>(0, index - warmup));
  const double left = static_cast<double>(std::max<std::int64_t>(1, total - warmup));
  const double part = std::min(1.0, since / left);
  if (index < warmup) {
    const auto risen = static_cast<double>(index) / static_cast<double>(warmup);
    if (kind == Kind::one_cycle) return anneal(rate, rate / one_cycle_start, 1 - risen);
    return rate * static_cast<double>(index + 1) / static_cast<double>(warmup);
  }
  const double periods = since / static_cast<double>(std::max<std::int64_t>(1, period));
  switch (kind) {
    case Kind::constant:
      return rate;
    case Kind::step:
      return rate * std::pow(factor, std::floor(periods));
    case Kind::exponential:
      return rate * std::pow(factor, periods);
    case Kind::cosine:
    case Kind::one_cycle:
      break;
  }
  return anneal(rate, final_rate, part);
}

std::string_view name(Kind kind) {
  return std::ranges::find(names, kind, [](const auto& entry) { return entry.first; })->second;
}

std::optional<Kind> schedule_from_name(std::string_view text) {
  const auto found =
      std::ranges::find(names, text, [](const auto& entry) { return entry.second; });
  return found != names.end() ? std::optional(found->first) : std::nullopt;
}

}  // namespace onnxpress
