#include "passes/quantize/adaround.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "graph/kernels/sgemm.h"

namespace onnxpress {
namespace {

constexpr std::int64_t rows_at_once = 32;
constexpr std::int64_t batch_columns = 256;
constexpr std::int64_t norm_columns = 1024;
constexpr float learning_rate = 1e-2F;
constexpr double warm_up = 0.2;  // share of the steps without regularizer
constexpr float regularization = 1;
constexpr float sharpest = 2, bluntest = 20;  // the regularizer's exponent at the end and the start

float rectified_sigmoid(float v) {
  return std::clamp((rectified_high - rectified_low) / (1 + std::exp(-v)) + rectified_low, 0.0F, 1.0F);
}

float inverse_rectified_sigmoid(float h) {
  const float inside = std::clamp((h - rectified_low) / (rectified_high - rectified_low), 1e-4F, 1 - 1e-4F);
  return -std::log(1 / inside - 1);
}

RoundingStep schedule(std::int64_t step, std::int64_t steps) {
  const double progress = static_cast<double>(step) / static_cast<double>(steps);
  const double cooled = std::max(0.0, (progress - warm_up) / (1 - warm_up));
  const auto number = static_cast<float>(step + 1);
  return {.regularization = progress < warm_up ? 0.0F : regularization,
          .exponent = static_cast<float>(sharpest + (bluntest - sharpest) * 0.5 *
                                                        (1 + std::cos(cooled * std::numbers::pi))),
          .rate = learning_rate,
          .first_correction = 1 / (1 - std::pow(RoundingStep::first_decay, number)),
          .second_correction = 1 / (1 - std::pow(RoundingStep::second_decay, number))};
}

}  // namespace

RoundingDescent::RoundingDescent(LayerProblem& problem, const SampledColumns& columns,
                                 const FollowingActivation& activation, std::int64_t group, std::int64_t first,
                                 std::int64_t last)
    : problem_(problem),
      columns_(columns),
      activation_(activation),
      group_(group),
      first_(first),
      rows_(last - first),
      depth_(problem.matrix().depth) {
  const std::int64_t padded = (rows_ * depth_ + rounding_lanes - 1) / rounding_lanes * rounding_lanes;
  for (std::vector<float>* array : {&base_, &step_, &choice_, &weight_, &weight_gradient_, &gradient_})
    array->assign(static_cast<std::size_t>(padded), 0.0F);
  for_each_element([&](std::size_t i, const LayerPart& part, std::size_t element, const QuantizationParameters& p) {
    const QuantizedType& type = problem_.rules().type;
    const float scaled = part.target[element] / p.scale;
    base_[i] = std::clamp(std::floor(scaled), static_cast<float>(type.min() - p.zero_point),
                          static_cast<float>(type.max() - 1 - p.zero_point));
    step_[i] = p.scale;
    choice_[i] = inverse_rectified_sigmoid(std::clamp(scaled - base_[i], 0.0F, 1.0F));
  });
  target_.resize(static_cast<std::size_t>(columns.count() * rows_));
  const std::vector<float>& exact = columns.outputs(group);
  for (std::int64_t c = 0; c < columns.count(); ++c)
    for (std::int64_t r = 0; r < rows_; ++r)
      target_[static_cast<std::size_t>(c * rows_ + r)] =
          activation_.value(biased(exact[static_cast<std::size_t>(c * problem.matrix().rows + first_ + r)], r));
  find_norms();
}

template <class Fn>
void RoundingDescent::for_each_element(const Fn& fn) {
  for (LayerPart& part : problem_.parts()) {
    if (part.group != group_) continue;
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t d = 0; d < part.depth; ++d) {
        const auto element = static_cast<std::size_t>((first_ + r) * part.depth + d);
        fn(static_cast<std::size_t>(r * depth_ + part.begin + d), part, element,
           problem_.grid().parameters[static_cast<std::size_t>(part.scales[element])]);
      }
  }
}

void RoundingDescent::run(std::int64_t steps) {
  const std::int64_t batch = std::min(batch_columns, columns_.count());
  std::vector<float> first(choice_.size()), second(choice_.size());
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < steps; ++i) {
    const RoundingStep step = schedule(i, steps);
    gradient(step, begin, batch);
    descend_rounding(step, gradient_.data(), choice_.data(), first.data(), second.data(), std::ssize(choice_));
    begin += batch;
    if (begin + batch > columns_.count()) begin = 0;
  }
}

void RoundingDescent::choose_codes() {
  for_each_element([&](std::size_t i, LayerPart& part, std::size_t element, const QuantizationParameters& p) {
    const float level = base_[i] + (choice_[i] >= 0 ? 1.0F : 0.0F);
    part.codes[element] = static_cast<std::int32_t>(level) + static_cast<std::int32_t>(p.zero_point);
  });
}

float RoundingDescent::biased(float product, std::int64_t row) const {
  const auto channel = static_cast<std::size_t>(group_ * problem_.matrix().rows + first_ + row);
  return activation_.gain * product + (activation_.bias.empty() ? 0.0F : activation_.bias[channel]);
}

std::vector<float> RoundingDescent::outputs(std::int64_t begin, std::int64_t count) const {
  std::vector<float> result(static_cast<std::size_t>(count * rows_));
  sgemm(count, rows_, depth_, 1, {columns_.inputs(group_).data() + begin * depth_, depth_},
        {weight_.data(), depth_, true}, 0, {result.data(), rows_});
  return result;
}

void RoundingDescent::find_norms() {
  for (std::size_t i = 0; i < weight_.size(); ++i) weight_[i] = step_[i] * (base_[i] + (choice_[i] >= 0 ? 1.0F : 0.0F));
  norm_.assign(static_cast<std::size_t>(rows_), 0.0F);
  const std::int64_t count = std::min(columns_.count(), norm_columns);
  const std::vector<float> result = outputs(0, count);
  for (std::int64_t c = 0; c < count; ++c)
    for (std::int64_t r = 0; r < rows_; ++r) {
      const auto i = static_cast<std::size_t>(c * rows_ + r);
      const float rest = activation_.value(biased(result[i], r)) - target_[i];
      norm_[static_cast<std::size_t>(r)] += rest * rest / static_cast<float>(count);
    }
}

double RoundingDescent::loss(const RoundingStep& step, std::int64_t begin, std::int64_t count) {
  soften_rounding(base_.data(), step_.data(), choice_.data(), weight_.data(), std::ssize(weight_));
  const std::vector<float> result = outputs(begin, count);
  double total = 0;
  for (std::int64_t c = 0; c < count; ++c)
    for (std::int64_t r = 0; r < rows_; ++r) {
      const auto i = static_cast<std::size_t>(c * rows_ + r);
      const auto rest = static_cast<double>(activation_.value(biased(result[i], r)) -
                                            target_[static_cast<std::size_t>(begin * rows_) + i]);
      const auto norm = static_cast<double>(norm_[static_cast<std::size_t>(r)]);
      if (norm > 0) total += rest * rest * static_cast<double>(depth_) / (norm * static_cast<double>(count));
    }
  for (std::int64_t i = 0; i < rows_ * depth_; ++i) {
    const auto away = static_cast<double>(2 * rectified_sigmoid(choice_[static_cast<std::size_t>(i)]) - 1);
    total += static_cast<double>(step.regularization) *
             (1 - std::pow(std::abs(away), static_cast<double>(step.exponent)));
  }
  return total;
}

std::span<const float> RoundingDescent::gradient(const RoundingStep& step, std::int64_t begin, std::int64_t count) {
  soften_rounding(base_.data(), step_.data(), choice_.data(), weight_.data(), std::ssize(weight_));
  std::vector<float> result = outputs(begin, count);
  for (std::int64_t c = 0; c < count; ++c)
    for (std::int64_t r = 0; r < rows_; ++r) {
      const auto i = static_cast<std::size_t>(c * rows_ + r);
      const float before = biased(result[i], r);
      const float rest = activation_.value(before) - target_[static_cast<std::size_t>(begin * rows_) + i];
      const float norm = norm_[static_cast<std::size_t>(r)];
      result[i] = norm > 0 ? 2 * rest * activation_.slope(before) * activation_.gain * static_cast<float>(depth_) /
                                 (norm * static_cast<float>(count))
                           : 0.0F;
    }
  sgemm(rows_, depth_, count, 1, {result.data(), rows_, true}, {columns_.inputs(group_).data() + begin * depth_, depth_},
        0, {weight_gradient_.data(), depth_});
  rounding_gradient(step, weight_gradient_.data(), step_.data(), choice_.data(), gradient_.data(), std::ssize(gradient_));
  return gradient_;
}

void adaround(ThreadPool& pool, LayerProblem& problem, const SampledColumns& columns,
              const FollowingActivation& activation, std::int64_t steps) {
  if (columns.count() == 0) return;
  const std::int64_t rows = problem.matrix().rows;
  const std::int64_t pieces = (rows + rows_at_once - 1) / rows_at_once;
  pool.parallel_for(problem.matrix().groups * pieces, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t first = task % pieces * rows_at_once;
    RoundingDescent descent(problem, columns, activation, task / pieces, first, std::min(rows, first + rows_at_once));
    descent.run(steps);
    descent.choose_codes();
  });
}

}  // namespace onnxpress
