#include "passes/quantize/rounding.h"

#include <algorithm>
#include <functional>

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

std::vector<RoundingResult> round_weights(const Model& model, const std::vector<RoundingTask>& tasks,
                                          PassContext& context, const QuantizeRequest& request) {
  if (request.rounds_by_inputs())
    return round_layers(model, tasks, context, request);
  std::vector<RoundingResult> results(tasks.size());
  for_each_weight(tasks, context.pool, [&](std::size_t i) {
    const RoundingTask& task = tasks[i];
    const bool is_open = request.rounding == Rounding::automatic;
    const Rounding method = is_open ? automatic_rounding(task, request) : request.rounding;
    results[i] = method == Rounding::nearest ? round_on_range(context.pool, task)
                                             : round_on_own_grid(context.pool, task, method);
  });
  return results;
}

}  // namespace onnxpress
