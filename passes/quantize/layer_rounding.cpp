// How a LayerProblem chooses its codes and refines scales.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "graph/kernels/sgemm.h"
#include "passes/common/channel_sets.h"
#include "passes/quantize/closest_codes.h"
#include "passes/quantize/layer_problem.h"

namespace onnxpress {
namespace {

constexpr std::int64_t columns_at_once = 64;
constexpr double least_gain = 1e-3;  // of the error, for another turn

std::int64_t grain(std::size_t tasks) { return tasks > 256 ? 16 : 1; }

// H with rows and columns in `order`.
std::vector<float> reordered(const LayerPart& part, const std::vector<std::int64_t>& order) {
  std::vector<float> matrix;
  matrix.reserve(part.hessian.size());
  for (const std::int64_t i : order)
    for (const std::int64_t j : order) matrix.push_back(part.hessian[static_cast<std::size_t>(i * part.depth + j)]);
  return matrix;
}

// Columns of a part whose elements, row by row, share a scale.
struct ScaleClass {
  std::vector<std::int64_t> columns;
  bool all = false;  // every column, in order
  std::vector<float> hessian;  // [columns, columns]; empty when `all`
  std::vector<float> rows;     // [columns, depth] of the hessian; empty when `all`
  double sum = 0;              // of `hessian`
};

// Nothing when rows do not share scales in the same way.
std::optional<std::vector<ScaleClass>> scale_classes(const LayerPart& part, std::int64_t rows) {
  std::map<std::int32_t, std::size_t> known;
  std::vector<ScaleClass> classes;
  for (std::int64_t d = 0; d < part.depth; ++d) {
    const auto [found, is_new] = known.try_emplace(part.scales[static_cast<std::size_t>(d)], classes.size());
    if (is_new) classes.emplace_back();
    classes[found->second].columns.push_back(d);
  }
  for (ScaleClass& scale : classes) {
    for (std::int64_t row = 0; row < rows; ++row)
      for (const std::int64_t column : scale.columns)
        if (part.scales[static_cast<std::size_t>(row * part.depth + column)] !=
            part.scales[static_cast<std::size_t>(row * part.depth + scale.columns[0])])
          return std::nullopt;
    scale.all = std::ssize(scale.columns) == part.depth;
    for (const std::int64_t i : scale.columns) {
      const float* row = part.hessian.data() + i * part.depth;
      for (const std::int64_t j : scale.columns) scale.sum += static_cast<double>(row[j]);
      if (scale.all) continue;
      scale.rows.insert(scale.rows.end(), row, row + part.depth);
      for (const std::int64_t j : scale.columns) scale.hessian.push_back(row[j]);
    }
  }
  return classes;
}

// What a change of a scale, or of its zero point, would do to the error.
struct ScaleSums {
  double slope = 0;      // of levels and gradients
  double curvature = 0;  // levels H levels
  double gradient = 0;   // of gradients
  double weight = 0;     // ones H ones
};

// The parameters that lower the error most, or nothing.
std::optional<QuantizationParameters> improved(const ScaleSums& sums, const QuantizationParameters& now,
                                               const ScaleRules& rules, bool zero_points) {
  QuantizationParameters next = now;
  const auto scale = static_cast<double>(now.scale);
  if (zero_points) {
    if (!(sums.weight > 0)) return std::nullopt;
    const double steps = std::nearbyint(-sums.gradient / (scale * sums.weight));
    if (!(std::abs(steps) < 65536)) return std::nullopt;
    next.zero_point = std::clamp(now.zero_point + static_cast<std::int64_t>(steps), rules.type.min(), rules.type.max());
    const double shift = scale * static_cast<double>(next.zero_point - now.zero_point);
    const bool gains = 2 * shift * sums.gradient + shift * shift * sums.weight < 0;
    return gains && rules.allowed(now.scale, next.zero_point) == now.scale ? std::optional(next) : std::nullopt;
  }
  if (!(sums.curvature > 0)) return std::nullopt;
  const auto wanted = static_cast<float>(scale + sums.slope / sums.curvature);
  if (!(wanted > 0) || !std::isfinite(wanted)) return std::nullopt;
  next.scale = rules.allowed(wanted, now.zero_point);
  const double step = static_cast<double>(next.scale) - scale;
  return step * (step * sums.curvature - 2 * sums.slope) < 0 ? std::optional(next) : std::nullopt;
}

}  // namespace

void LayerProblem::round_columns(ThreadPool& pool, bool by_importance) {
  std::vector<std::vector<std::int64_t>> orders(parts_.size());
  std::vector<std::vector<float>> feedback(parts_.size());
  const auto prepare_part = [&](std::size_t i) {
    const LayerPart& part = parts_[i];
    // The last of the order is rounded first.
    std::vector<std::int64_t>& order = orders[i];
    order.resize(static_cast<std::size_t>(part.depth));
    std::iota(order.rbegin(), order.rend(), std::int64_t{0});
    if (by_importance)
      std::ranges::stable_sort(order, {}, [&](std::int64_t d) {
        return part.hessian[static_cast<std::size_t>(d * (part.depth + 1))];
      });
    feedback[i] = reordered(part, order);
    if (!factorize(pool, part.depth, feedback[i].data())) {
      feedback[i].clear();
      return;
    }
    std::vector<float> inverse;
    for (std::int64_t d = 0; d < part.depth; ++d)
      inverse.push_back(1 / feedback[i][static_cast<std::size_t>(d * (part.depth + 1))]);
    for (std::size_t e = 0; e < feedback[i].size(); ++e) feedback[i][e] *= inverse[e % inverse.size()];
  };
  if (parts_.size() == 1)
    prepare_part(0);
  else
    pool.parallel_for(std::ssize(parts_), grain(parts_.size()), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) prepare_part(static_cast<std::size_t>(i));
    });
  const std::vector<RowRange> ranges = row_ranges();
  pool.parallel_for(std::ssize(ranges), grain(ranges.size()), [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      round_rows(ranges[i], orders[ranges[i].part], feedback[ranges[i].part]);
  });
}

void LayerProblem::round_rows(const RowRange& range, const std::vector<std::int64_t>& order,
                              const std::vector<float>& feedback) {
  LayerPart& part = parts_[range.part];
  const std::int64_t depth = part.depth, rows = range.last - range.first;
  std::vector<float> errors(static_cast<std::size_t>(rows * depth));  // in `order`
  std::vector<float> wanted(static_cast<std::size_t>(rows * columns_at_once));
  for (std::int64_t end = depth; end > 0; end -= std::min(end, columns_at_once)) {
    const std::int64_t begin = std::max<std::int64_t>(0, end - columns_at_once), width = end - begin;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t k = begin; k < end; ++k)
        wanted[static_cast<std::size_t>(r * width + k - begin)] =
            part.target[static_cast<std::size_t>((range.first + r) * depth + order[static_cast<std::size_t>(k)])];
    // Errors of the columns of earlier blocks.
    if (!feedback.empty() && end < depth)
      sgemm(rows, width, depth - end, 1, {errors.data() + end, depth}, {feedback.data() + end * depth + begin, depth},
            1, {wanted.data(), width});
    for (std::int64_t k = end; k-- > begin;)
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto element =
            static_cast<std::size_t>((range.first + r) * depth + order[static_cast<std::size_t>(k)]);
        const QuantizationParameters& parameters = grid_.parameters[static_cast<std::size_t>(part.scales[element])];
        float* const row = wanted.data() + r * width;
        const std::int64_t code = quantize(row[k - begin], parameters, rules_.type);
        part.codes[element] = static_cast<std::int32_t>(code);
        const float error = part.target[element] - dequantize(code, parameters);
        errors[static_cast<std::size_t>(r * depth + k)] = error;
        if (feedback.empty()) continue;
        const float* const factors = feedback.data() + k * depth + begin;
        for (std::int64_t j = 0; j < k - begin; ++j) row[j] += error * factors[j];
      }
  }
}

void LayerProblem::round(ThreadPool& pool, bool by_importance, int most) {
  constexpr std::int64_t short_row = 32;
  constexpr int least_step = -16, most_step = 4, steps_per_octave = 16;
  const WeightGrid first = grid_;
  const bool is_short = std::ranges::all_of(parts_, [](const LayerPart& part) { return part.depth <= short_row; });
  std::vector<std::vector<float>> factors;
  for (const LayerPart& part : parts_)
    if (is_short && !factorize(pool, part.depth, factors.emplace_back(part.hessian).data())) factors.back().clear();
  const auto settle = [&] {
    round_columns(pool, by_importance);
    refine(pool, most);
    if (is_short) search_codes(pool, factors);
  };
  settle();
  if (!is_short) return;

  const std::vector<std::size_t> sets = row_sets();
  std::vector<double> least = set_errors(pool, sets);
  for (int step = least_step; step <= most_step; ++step) {
    if (step == 0) continue;
    const std::vector<LayerPart> best = parts_;
    const WeightGrid best_grid = grid_;
    grid_ = first;
    const float factor = std::exp2(static_cast<float>(step) / steps_per_octave);
    for (QuantizationParameters& parameters : grid_.parameters)
      parameters.scale = rules_.allowed(parameters.scale * factor, parameters.zero_point);
    settle();
    const std::vector<double> found = set_errors(pool, sets);
    std::size_t row = 0;
    for (std::size_t p = 0; p < parts_.size(); ++p)
      for (std::int64_t r = 0; r < matrix_.rows; ++r, ++row) {
        if (found[sets[row]] < least[sets[row]]) continue;
        for (std::int64_t d = r * parts_[p].depth; d < (r + 1) * parts_[p].depth; ++d) {
          const auto element = static_cast<std::size_t>(d);
          const auto scale = static_cast<std::size_t>(parts_[p].scales[element]);
          parts_[p].codes[element] = best[p].codes[element];
          grid_.parameters[scale] = best_grid.parameters[scale];
        }
      }
    for (std::size_t set = 0; set < least.size(); ++set) least[set] = std::min(least[set], found[set]);
  }
}

void LayerProblem::search_codes(ThreadPool& pool, const std::vector<std::vector<float>>& factors) {
  constexpr std::int64_t most_levels = 20'000;
  const auto rows = static_cast<std::size_t>(matrix_.rows);
  pool.parallel_for(std::ssize(parts_) * matrix_.rows, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<QuantizationParameters> parameters;
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      LayerPart& part = parts_[i / rows];
      if (factors[i / rows].empty()) continue;
      const auto depth = static_cast<std::size_t>(part.depth), first = i % rows * depth;
      parameters.clear();
      for (std::size_t d = first; d < first + depth; ++d)
        parameters.push_back(grid_.parameters[static_cast<std::size_t>(part.scales[d])]);
      find_closest_codes({factors[i / rows], std::span(part.target).subspan(first, depth), parameters, rules_.type},
                         most_levels, std::span(part.codes).subspan(first, depth));
    }
  });
}

std::vector<std::size_t> LayerProblem::row_sets() const {
  std::map<std::int32_t, std::size_t> row_of;  // by scale
  ChannelSets sets;
  const std::size_t count = parts_.size() * static_cast<std::size_t>(matrix_.rows);
  sets.add(count);
  std::size_t row = 0;
  for (const LayerPart& part : parts_)
    for (std::int64_t r = 0; r < matrix_.rows; ++r, ++row)
      for (std::int64_t d = r * part.depth; d < (r + 1) * part.depth; ++d)
        sets.unite(row_of.try_emplace(part.scales[static_cast<std::size_t>(d)], row).first->second, row);
  std::vector<std::size_t> roots;
  for (row = 0; row < count; ++row) roots.push_back(sets.root(row));
  return roots;
}

std::vector<double> LayerProblem::set_errors(ThreadPool& pool, const std::vector<std::size_t>& sets) const {
  std::vector<double> rows(sets.size());
  const auto per_part = static_cast<std::size_t>(matrix_.rows);
  pool.parallel_for(std::ssize(rows), 16, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      rows[i] = row_error(parts_[i / per_part], static_cast<std::int64_t>(i % per_part));
  });
  std::vector<double> errors(sets.size());
  for (std::size_t i = 0; i < sets.size(); ++i) errors[sets[i]] += rows[i];
  return errors;
}

LayerProblem::Gradients LayerProblem::gradients(ThreadPool& pool) const {
  Gradients all;
  for (const LayerPart& part : parts_) all.emplace_back(part.target.size());
  const std::vector<RowRange> ranges = row_ranges();
  pool.parallel_for(std::ssize(ranges), grain(ranges.size()), [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const auto& [index, first, last] = ranges[i];
      const LayerPart& part = parts_[index];
      const std::vector<float> errors = errors_of(part, first, last);
      sgemm(last - first, part.depth, part.depth, 1, {errors.data(), part.depth}, {part.hessian.data(), part.depth}, 0,
            {all[index].data() + first * part.depth, part.depth});
    }
  });
  return all;
}

void LayerProblem::refine(ThreadPool& pool, int most) {
  Gradients all = gradients(pool);
  const std::vector<RowRange> ranges = row_ranges();
  double before = error(pool);
  for (int turn = 0; turn < most; ++turn) {
    if (!rules_.power_of_two) refine_scales(pool, all, false);
    if (!rules_.type.symmetric) refine_scales(pool, all, true);
    pool.parallel_for(std::ssize(ranges), grain(ranges.size()), [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
        refine_codes(ranges[i], all[ranges[i].part]);
    });
    const double after = error(pool);
    if (!(after < before * (1 - least_gain))) break;
    before = after;
  }
}

void LayerProblem::refine_codes(const RowRange& range, std::vector<float>& gradient) {
  LayerPart& part = parts_[range.part];
  const std::int64_t depth = part.depth, rows = range.last - range.first;
  std::vector<float> changes(static_cast<std::size_t>(rows * columns_at_once));  // of w* - w'
  for (std::int64_t begin = 0; begin < depth; begin += columns_at_once) {
    const std::int64_t width = std::min(columns_at_once, depth - begin);
    bool changed = false;
    for (std::int64_t r = 0; r < rows; ++r) {
      float* const local = gradient.data() + (range.first + r) * depth + begin;
      std::vector<float> slope(local, local + width);
      for (std::int64_t k = 0; k < width; ++k) {
        const auto element = static_cast<std::size_t>((range.first + r) * depth + begin + k);
        const QuantizationParameters& parameters = grid_.parameters[static_cast<std::size_t>(part.scales[element])];
        const float* const row = part.hessian.data() + (begin + k) * depth + begin;
        const float now = dequantize(part.codes[element], parameters);
        const std::int64_t code = quantize(now + slope[static_cast<std::size_t>(k)] / row[k], parameters, rules_.type);
        float change = 0;
        if (code != part.codes[element]) {
          change = now - dequantize(code, parameters);
          part.codes[element] = static_cast<std::int32_t>(code);
          for (std::int64_t j = 0; j < width; ++j) slope[static_cast<std::size_t>(j)] += change * row[j];
          changed = true;
        }
        changes[static_cast<std::size_t>(r * width + k)] = change;
      }
    }
    if (changed)
      sgemm(rows, depth, width, 1, {changes.data(), width}, {part.hessian.data() + begin * depth, depth}, 1,
            {gradient.data() + range.first * depth, depth});
  }
}

void LayerProblem::refine_scales(ThreadPool& pool, Gradients& all, bool zero_points) {
  std::vector<std::vector<ScaleClass>> classes(parts_.size());
  std::size_t most = 0;
  std::map<std::int32_t, std::size_t> class_of;  // by scale; a scale is changed at one time only
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    auto found = scale_classes(parts_[p], matrix_.rows);
    if (!found) return;
    classes[p] = std::move(*found);
    most = std::max(most, classes[p].size());
    for (std::size_t c = 0; c < classes[p].size(); ++c)
      for (std::int64_t row = 0; row < matrix_.rows; ++row) {
        const std::int32_t scale =
            parts_[p].scales[static_cast<std::size_t>(row * parts_[p].depth + classes[p][c].columns[0])];
        if (class_of.try_emplace(scale, c).first->second != c) return;
      }
  }
  const std::vector<RowRange> ranges = row_ranges();
  const auto for_ranges = [&](const auto& fn) {
    pool.parallel_for(std::ssize(ranges), grain(ranges.size()), [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) fn(i);
    });
  };
  for (std::size_t c = 0; c < most; ++c) {
    std::vector<std::vector<ScaleSums>> sums(ranges.size());  // by row
    const auto levels_of = [&](const RowRange& range, const ScaleClass& scale) {
      const LayerPart& part = parts_[range.part];
      std::vector<float> levels;
      for (std::int64_t row = range.first; row < range.last; ++row)
        for (const std::int64_t column : scale.columns) {
          const auto element = static_cast<std::size_t>(row * part.depth + column);
          levels.push_back(static_cast<float>(
              part.codes[element] - grid_.parameters[static_cast<std::size_t>(part.scales[element])].zero_point));
        }
      return levels;
    };
    for_ranges([&](std::size_t i) {
      const RowRange& range = ranges[i];
      if (c >= classes[range.part].size()) return;
      const LayerPart& part = parts_[range.part];
      const ScaleClass& scale = classes[range.part][c];
      const auto width = std::ssize(scale.columns);
      const std::vector<float> levels = levels_of(range, scale);
      std::vector<float> products(levels.size());
      sgemm(range.last - range.first, width, width, 1, {levels.data(), width},
            {scale.all ? part.hessian.data() : scale.hessian.data(), width}, 0, {products.data(), width});
      for (std::int64_t row = range.first; row < range.last; ++row) {
        ScaleSums& sum = sums[i].emplace_back();
        sum.weight = scale.sum;
        for (std::int64_t k = 0; k < width; ++k) {
          const auto level = static_cast<std::size_t>((row - range.first) * width + k);
          const auto slope = static_cast<double>(
              all[range.part][static_cast<std::size_t>(row * part.depth + scale.columns[static_cast<std::size_t>(k)])]);
          sum.slope += slope * static_cast<double>(levels[level]);
          sum.curvature += static_cast<double>(levels[level]) * static_cast<double>(products[level]);
          sum.gradient += slope;
        }
      }
    });
    std::map<std::int32_t, ScaleSums> by_scale;
    const auto scale_of = [&](const RowRange& range, std::int64_t row) {
      const LayerPart& part = parts_[range.part];
      return part.scales[static_cast<std::size_t>(row * part.depth + classes[range.part][c].columns[0])];
    };
    for (std::size_t i = 0; i < ranges.size(); ++i)
      for (std::size_t r = 0; r < sums[i].size(); ++r) {
        ScaleSums& sum = by_scale[scale_of(ranges[i], ranges[i].first + static_cast<std::int64_t>(r))];
        sum.slope += sums[i][r].slope;
        sum.curvature += sums[i][r].curvature;
        sum.gradient += sums[i][r].gradient;
        sum.weight += sums[i][r].weight;
      }
    std::map<std::int32_t, QuantizationParameters> changes;
    for (const auto& [scale, sum] : by_scale)
      if (const auto next = improved(sum, grid_.parameters[static_cast<std::size_t>(scale)], rules_, zero_points))
        changes[scale] = *next;
    if (changes.empty()) continue;
    for_ranges([&](std::size_t i) {
      const RowRange& range = ranges[i];
      if (c >= classes[range.part].size()) return;
      const LayerPart& part = parts_[range.part];
      const ScaleClass& scale = classes[range.part][c];
      const auto width = std::ssize(scale.columns);
      std::vector<float> moved = levels_of(range, scale);  // becomes the change of w* - w'
      for (std::int64_t row = range.first; row < range.last; ++row) {
        const std::int32_t index = scale_of(range, row);
        const QuantizationParameters& now = grid_.parameters[static_cast<std::size_t>(index)];
        const auto found = changes.find(index);
        const QuantizationParameters& next = found == changes.end() ? now : found->second;
        const float growth = next.scale - now.scale;
        const float shift = now.scale * static_cast<float>(next.zero_point - now.zero_point);
        for (std::int64_t k = 0; k < width; ++k) {
          float& level = moved[static_cast<std::size_t>((row - range.first) * width + k)];
          level = shift - growth * level;
        }
      }
      sgemm(range.last - range.first, part.depth, width, 1, {moved.data(), width},
            {scale.all ? part.hessian.data() : scale.rows.data(), part.depth}, 1,
            {all[range.part].data() + range.first * part.depth, part.depth});
    });
    for (const auto& [scale, next] : changes) grid_.parameters[static_cast<std::size_t>(scale)] = next;
  }
}

}  // namespace onnxpress
