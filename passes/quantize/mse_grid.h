// Grids that are best for the weights themselves.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "graph/base/threads.h"
#include "passes/common/quantization.h"

namespace onnxpress {

// What scales may be.
struct ScaleRules {
  QuantizedType type;
  DType stored = DType::float32;
  bool power_of_two = false;

  // The scale that may be used for this one: positive, storable, a power of two where asked for (the
  // nearest in logarithm).
  float allowed(float scale, std::int64_t zero_point) const;
};

// Scale and zero point of least sum of importance * (value - rounded value)^2 (no importance: all 1),
// with rounding to nearest. Few values at few levels: the optimum, found by going through all scales at
// which a code changes (between two of them the error is a parabola); else the best of a search over
// clipping thresholds (Choukroun et al. 2019, arXiv 1902.06822, section 4), each made a local
// optimum by turns of rounding and least squares (Lloyd's algorithm).
QuantizationParameters least_error_parameters(std::span<const float> values, std::span<const float> importance,
                                              const ScaleRules& rules);

// Scale and zero point by half-quadratic quantization (Badri and Shaji 2023, "Half-Quadratic
// Quantization of Large Machine Learning Models"): the sum of |value - rounded value|^0.7, which outliers
// sway less than squares, is lowered. Errors are split off by generalized soft thresholding, the zero
// point (of asymmetric types) and the scale then follow in closed form. Needs no data.
QuantizationParameters half_quadratic_parameters(std::span<const float> values, const ScaleRules& rules);

using ChooseParameters =
    std::function<QuantizationParameters(std::span<const float> values, std::span<const float> importance)>;

// Scale and zero point of every group of a weight of these dims by `choose`, which is given the
// group's values (and importance, where there is one) in memory order. Called on all threads.
std::vector<QuantizationParameters> choose_by_group(ThreadPool& pool, const Dims& dims,
                                                    const Granularity& granularity, std::span<const float> values,
                                                    std::span<const float> importance, const ChooseParameters& choose);

// A grid by `choose` for a weight. Nothing when it holds NaN or infinity.
std::optional<WeightGrid> chosen_grid(ThreadPool& pool, const Tensor& weight, const Granularity& granularity,
                                      const ScaleRules& rules, const ChooseParameters& choose);

}  // namespace onnxpress
