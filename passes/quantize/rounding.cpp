#include "passes/quantize/rounding.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <fmt/format.h>

#include "passes/quantize/layerwise.h"
#include "passes/quantize/mse_grid.h"

namespace onnxpress {
namespace {

RoundingResult round_on_range(ThreadPool& pool, const RoundingTask& task) {
  const Tensor& weight = *task.weight.value->constant();
  RoundingResult result;
  if (const auto grid = min_max_grid(weight, task.type, task.granularity, task.grid, &pool))
    result.quantized = round_to_nearest(weight, *grid, &pool);
  return result;
}

// Where a scale has few weights its best value is well below what covers them all, and costs little to
// find. Many weights are better not clipped: the largest meet what matters (bench/quantize/accuracy.py).
Rounding automatic_rounding(const RoundingTask& task, const QuantizeRequest& request) {
  constexpr std::int64_t few = 128;
  const Tensor& weight = *task.weight.value->constant();
  const std::int64_t scales = std::max<std::int64_t>(1, element_count(task.granularity.scale_dims(weight.dims())));
  const bool is_best = request.scheme != Scheme::weights && has_free_scales(task) && weight.size() <= few * scales;
  return is_best ? Rounding::mse : Rounding::nearest;
}

// Calls fn(index) for all tasks. Weights that would keep one thread longer than the others are shared
// by all threads, one after the other; each of the rest is one thread's, which wait for none.
void for_each_weight(const std::vector<RoundingTask>& tasks, ThreadPool& pool,
                     const std::function<void(std::size_t)>& fn) {
  const auto elements = [&](std::size_t i) { return tasks[i].weight.value->constant()->size(); };
  std::int64_t all = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) all += elements(i);
  std::vector<std::size_t> rest;
  for (std::size_t i = 0; i < tasks.size(); ++i)
    if (elements(i) * 4 * pool.size() > all) fn(i);
    else rest.push_back(i);
  std::ranges::stable_sort(rest, std::ranges::greater(), elements);
  pool.parallel_for(std::ssize(rest), 1, [&](std::int64_t i, std::int64_t) { fn(rest[static_cast<std::size_t>(i)]); });
}

// Whether scales of the least and the largest group that matter would be off by much, as numbers of
// `stored`. Groups below a thousandth of the weight's largest number change it by nothing that counts.
bool are_scales_in_range(const RoundingTask& task, DType stored, ThreadPool& pool) {
  constexpr float most_change = 0x1p-5F, least_share = 1e-3F;
  const auto grid = min_max_grid(*task.weight.value->constant(), task.type, task.granularity, {.scale_type = DType::float32}, &pool);
  if (!grid) return true;
  float largest = 0;
  for (const QuantizationParameters& p : grid->parameters) largest = std::max(largest, p.scale);
  return std::ranges::all_of(grid->parameters, [&](const QuantizationParameters& p) {
    if (p.scale < least_share * largest) return true;
    return std::fabs(storable_scale(p, task.type, stored) - p.scale) <= most_change * p.scale;
  });
}

std::vector<RoundingTask> with_scales_in_range(std::vector<RoundingTask> tasks, ThreadPool& pool) {
  for (RoundingTask& task : tasks)
    if (task.grid.scale_type == DType::float16 && task.weight.value->constant()->dtype() != DType::float16 &&
        !are_scales_in_range(task, DType::float16, pool))
      task.grid.scale_type = DType::undefined;
  return tasks;
}

// Why codes do not stand for the weight; empty: they do.
std::string obstacle_of(const RoundingTask& task, const RoundingResult& result) {
  const std::string& name = task.weight.value->name();
  if (!result.quantized) return fmt::format("'{}' holds NaN or infinity", name);
  constexpr double nothing_left_db = 1;
  if (task.type.has_float_codes() || result.quantized->snr_db > nothing_left_db) return {};
  const DType stored = result.quantized->scale.dtype();
  const float least = storable_scale({.scale = std::numeric_limits<float>::min()}, task.type, stored);
  for (const float scale : result.quantized->scale.to_floats())
    if (scale > least && scale != 1) return {};  // 1: nothing but zeros
  return fmt::format("'{}' holds numbers too small for scales of {} only", name, onnxpress::name(stored));
}

}  // namespace

ScaleRules scale_rules(const RoundingTask& task) {
  const DType stored = task.grid.scale_type;
  return {task.type, stored == DType::undefined ? task.weight.value->constant()->dtype() : stored,
          task.grid.power_of_two};
}

bool has_free_scales(const RoundingTask& task) {
  return !task.type.has_float_codes() && bits(scale_rules(task).stored) >= 16;
}

RoundingResult round_on_own_grid(ThreadPool& pool, const RoundingTask& task, Rounding method) {
  if (!has_free_scales(task)) {
    RoundingResult result = round_on_range(pool, task);
    result.note = "rounded to nearest: the method needs levels at equal distances and scales of 16 bits or more";
    return result;
  }
  const Tensor& weight = *task.weight.value->constant();
  const ScaleRules rules = scale_rules(task);
  const auto choose = [&](std::span<const float> values, std::span<const float> importance) {
    return method == Rounding::hqq ? half_quadratic_parameters(values, rules)
                                   : least_error_parameters(values, importance, rules);
  };
  RoundingResult result;
  if (const auto grid = chosen_grid(pool, weight, task.granularity, rules, choose))
    result.quantized = round_to_nearest(weight, *grid, &pool);
  return result;
}

WeightGrid grid_of(const QuantizedTensor& quantized, const QuantizedType& type) {
  WeightGrid grid{.type = type, .granularity = quantized.granularity, .scale_type = quantized.scale.dtype()};
  if (quantized.outer_scale.defined()) grid.outer_scale = quantized.outer_scale.to_floats()[0];
  const std::vector<float> scales = quantized.scale.to_floats();
  const std::vector<std::int64_t> zeros =
      quantized.zero_point.defined() ? quantized.zero_point.to_ints() : std::vector<std::int64_t>(scales.size(), 0);
  for (std::size_t i = 0; i < scales.size(); ++i) grid.parameters.push_back({scales[i] * grid.outer_scale, zeros[i]});
  return grid;
}

std::vector<RoundingResult> round_weights(const Model& model, const std::vector<RoundingTask>& asked,
                                          PassContext& context, const QuantizeRequest& request) {
  const std::vector<RoundingTask> tasks = with_scales_in_range(asked, context.pool);
  std::vector<RoundingResult> results;
  if (request.rounds_by_inputs()) {
    results = round_layers(model, tasks, context, request);
  } else {
    results.resize(tasks.size());
    for_each_weight(tasks, context.pool, [&](std::size_t i) {
      const RoundingTask& task = tasks[i];
      const bool is_open = request.rounding == Rounding::automatic;
      const Rounding method = is_open ? automatic_rounding(task, request) : request.rounding;
      results[i] = method == Rounding::nearest ? round_on_range(context.pool, task)
                                               : round_on_own_grid(context.pool, task, method);
    });
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i].obstacle = obstacle_of(tasks[i], results[i]);
    if (!results[i].obstacle.empty()) results[i].quantized.reset();
  }
  return results;
}

}  // namespace onnxpress
