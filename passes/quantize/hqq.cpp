#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "passes/quantize/mse_grid.h"

namespace onnxpress {
namespace {

// As the authors have them; errors are measured in steps of the grid at the start, so that the result
// does not depend on the size of the weights.
constexpr float norm = 0.7F;
constexpr float first_penalty = 10;
constexpr float penalty_growth = 1.01F;
constexpr int rounds = 20;

// argmin_e |e|^norm + penalty / 2 (e - x)^2, about.
float shrink(float x, float penalty) {
  const float size = std::abs(x);
  if (size == 0) return 0;
  return std::copysign(std::max(0.0F, size - std::pow(size, norm - 1) / penalty), x);
}

class HalfQuadratic {
 public:
  HalfQuadratic(std::span<const float> values, const ScaleRules& rules) : values_(values), rules_(rules) {}

  // From the grid that covers the range; the round of least absolute error counts.
  void run(float low, float high) {
    QuantizationParameters parameters = min_max_parameters(low, high, rules_.type);
    const float step = parameters.scale;
    keep(parameters);
    float penalty = first_penalty;
    for (int round = 0; round < rounds; ++round, penalty *= penalty_growth) {
      const QuantizationParameters before = parameters;
      improve(parameters, step, penalty);
      parameters.scale = rules_.allowed(parameters.scale, parameters.zero_point);
      keep(parameters);
      if (parameters.scale == before.scale && parameters.zero_point == before.zero_point) break;
    }
  }

  const QuantizationParameters& best() const { return best_; }

 private:
  void improve(QuantizationParameters& parameters, float step, float penalty) {
    const QuantizedType& type = rules_.type;
    double offset = 0;
    std::vector<float> codes(values_.size()), inliers(values_.size());
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const std::int64_t code = quantize(values_[i], parameters, type);
      const float rest = (values_[i] - dequantize(code, parameters)) / step;
      codes[i] = static_cast<float>(code);
      inliers[i] = values_[i] - shrink(rest, penalty) * step;
      offset += static_cast<double>(codes[i] - inliers[i] / parameters.scale);
    }
    if (!type.symmetric) {
      const double zero = std::nearbyint(offset / static_cast<double>(values_.size()));
      parameters.zero_point = static_cast<std::int64_t>(
          std::clamp(zero, static_cast<double>(type.min()), static_cast<double>(type.max())));
    }
    double product = 0, level_square = 0;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const double level = static_cast<double>(codes[i]) - static_cast<double>(parameters.zero_point);
      product += static_cast<double>(inliers[i]) * level;
      level_square += level * level;
    }
    if (product > 0 && level_square > 0) parameters.scale = static_cast<float>(product / level_square);
  }

  void keep(QuantizationParameters parameters) {
    parameters.scale = rules_.allowed(parameters.scale, parameters.zero_point);
    double error = 0;
    for (const float value : values_) {
      const std::int64_t code = quantize(value, parameters, rules_.type);
      error += static_cast<double>(std::abs(value - dequantize(code, parameters)));
    }
    if (error >= least_) return;
    least_ = error;
    best_ = parameters;
  }

  std::span<const float> values_;
  const ScaleRules& rules_;
  double least_ = std::numeric_limits<double>::infinity();
  QuantizationParameters best_;
};

}  // namespace

QuantizationParameters half_quadratic_parameters(std::span<const float> values, const ScaleRules& rules) {
  float low = 0, high = 0;
  for (const float value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low == high) return {};
  HalfQuadratic search(values, rules);
  search.run(low, high);
  return search.best();
}

}  // namespace onnxpress
