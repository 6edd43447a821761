#include "passes/quantize/layer_problem.h"

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Cholesky>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph/base/error.h"
#include "graph/kernels/sgemm.h"

namespace onnxpress {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Block = Eigen::Map<RowMajor, 0, Eigen::OuterStride<>>;

constexpr std::int64_t deepest_part = 6144;  // 150 MB of sums
constexpr std::int64_t panel = 128;
constexpr std::int64_t sum_rows = 256;
constexpr std::int64_t solved_rows = 32;

Block map(float* data, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  return {data, rows, columns, Eigen::OuterStride<>(stride)};
}

// The sum over rows r of r (H - damping I) r^T.
double quadratic_form(const LayerPart& part, const std::vector<float>& rows, float damping) {
  std::vector<float> product(rows.size());
  sgemm(std::ssize(rows) / part.depth, part.depth, part.depth, 1, {rows.data(), part.depth},
        {part.hessian.data(), part.depth}, 0, {product.data(), part.depth});
  double total = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    total += static_cast<double>(rows[i]) * static_cast<double>(product[i] - damping * rows[i]);
  return total;
}

std::int64_t part_count(std::int64_t depth) { return std::max<std::int64_t>(1, (depth + deepest_part - 1) / deepest_part); }

// sum += a^T b of [count, depth] samples with rows of `stride`; only the upper triangle, about, of a
// symmetric one.
void add_samples(ThreadPool& pool, std::int64_t count, std::int64_t depth, const float* a, const float* b,
                 std::int64_t stride, bool symmetric, float* sum) {
  pool.parallel_for(depth, sum_rows, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = symmetric ? begin : 0;
    sgemm(end - begin, depth - first, count, 1, {a + begin, stride, true}, {b + first, stride}, 1,
          {sum + begin * depth + first, depth});
  });
}

}  // namespace

bool factorize(ThreadPool& pool, std::int64_t size, float* matrix) {
  for (std::int64_t k = 0; k < size; k += panel) {
    const std::int64_t width = std::min(panel, size - k);
    Block diagonal = map(matrix + k * size + k, width, width, size);
    const Eigen::LLT<RowMajor> local(diagonal);
    if (local.info() != Eigen::Success) return false;
    diagonal = RowMajor(local.matrixL());
    const std::int64_t next = k + width;
    pool.parallel_for(size - next, panel, [&](std::int64_t begin, std::int64_t end) {
      Block below = map(matrix + (next + begin) * size + k, end - begin, width, size);
      diagonal.transpose().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(below);
    });
    pool.parallel_for(size - next, panel, [&](std::int64_t begin, std::int64_t end) {
      const float* rows = matrix + (next + begin) * size + k;
      sgemm(end - begin, end, width, -1, {rows, size}, {matrix + next * size + k, size, true}, 1,
            {matrix + (next + begin) * size + next, size});
    });
  }
  for (std::int64_t i = 0; i < size; ++i) {
    std::fill(matrix + i * size + i + 1, matrix + (i + 1) * size, 0.0F);
    if (!std::isfinite(matrix[i * size + i])) return false;
  }
  return true;
}

LayerProblem::LayerProblem(WeightMatrix matrix, Dims dims, std::vector<float> weight, Granularity granularity,
                           ScaleRules rules, bool with_drift)
    : matrix_(std::move(matrix)),
      dims_(std::move(dims)),
      weight_(std::move(weight)),
      rules_(rules),
      grid_{.type = rules.type, .granularity = granularity, .scale_type = rules.stored, .parameters = {}},
      with_drift_(with_drift) {
  std::vector<std::int32_t> scale_of(weight_.size());
  for_each_scale_run(dims_, granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    std::fill_n(scale_of.begin() + begin, count, static_cast<std::int32_t>(group));
  });
  const std::int64_t pieces = part_count(matrix_.depth);
  for (std::int64_t group = 0; group < matrix_.groups; ++group)
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      LayerPart part{.group = group, .begin = piece * matrix_.depth / pieces};
      part.depth = (piece + 1) * matrix_.depth / pieces - part.begin;
      const auto square = static_cast<std::size_t>(part.depth * part.depth);
      part.hessian.assign(square, 0.0F);
      if (with_drift) part.drift.assign(square, 0.0F);
      for (std::int64_t row = 0; row < matrix_.rows; ++row)
        for (std::int64_t d = 0; d < part.depth; ++d) {
          const auto element = static_cast<std::size_t>(matrix_.element(group, row, part.begin + d));
          part.target.push_back(weight_[element]);
          part.scales.push_back(scale_of[element]);
        }
      part.codes.assign(part.target.size(), 0);
      parts_.push_back(std::move(part));
    }
}

std::size_t LayerProblem::bytes(const WeightMatrix& matrix, bool with_drift) {
  const std::int64_t pieces = part_count(matrix.depth);
  const std::int64_t depth = (matrix.depth + pieces - 1) / pieces;
  return static_cast<std::size_t>(matrix.groups * pieces * depth * depth) * sizeof(float) * (with_drift ? 2 : 1);
}

void LayerProblem::add(ThreadPool& pool, const ColumnBlock& block) {
  columns_ += block.count;
  std::vector<float> difference;
  if (with_drift_ && block.exact.data() != block.rounded.data()) {
    difference.resize(block.exact.size());
    std::ranges::transform(block.exact, block.rounded, difference.begin(), std::minus<>());
  }
  const std::int64_t depth = matrix_.depth;
  const auto add_part = [&](LayerPart& part) {
    const std::int64_t offset = part.group * block.count * depth + part.begin;
    const float* rounded = block.rounded.data() + offset;
    add_samples(pool, block.count, part.depth, rounded, rounded, depth, true, part.hessian.data());
    if (!difference.empty())
      add_samples(pool, block.count, part.depth, difference.data() + offset, rounded, depth, false,
                  part.drift.data());
  };
  // Many small sums side by side; the blocks of a large one side by side.
  if (parts_.size() == 1) return add_part(parts_[0]);
  pool.parallel_for(std::ssize(parts_), 1,
                    [&](std::int64_t begin, std::int64_t) { add_part(parts_[static_cast<std::size_t>(begin)]); });
}

void LayerProblem::prepare(ThreadPool& pool, double damping) {
  const float factor = 1 / static_cast<float>(std::max<std::int64_t>(1, columns_));
  for (LayerPart& part : parts_) {
    const std::int64_t depth = part.depth;
    for (float& sum : part.drift) sum *= factor;
    double trace = 0;
    for (std::int64_t i = 0; i < depth; ++i) {
      for (std::int64_t j = i; j < depth; ++j) {
        const float sum = part.hessian[static_cast<std::size_t>(i * depth + j)] * factor;
        part.hessian[static_cast<std::size_t>(i * depth + j)] = sum;
        part.hessian[static_cast<std::size_t>(j * depth + i)] = sum;
      }
      trace += static_cast<double>(part.hessian[static_cast<std::size_t>(i * (depth + 1))]);
    }
    // All inputs zero: every element counts the same.
    part.damping = trace > 0 ? static_cast<float>(damping * trace / static_cast<double>(depth)) : 1.0F;
    for (std::int64_t i = 0; i < depth; ++i) part.hessian[static_cast<std::size_t>(i * (depth + 1))] += part.damping;
  }
  // Elements that nothing reaches still need a level.
  for (LayerPart& part : parts_)
    for (std::int64_t i = 0; i < part.depth; ++i) {
      float& diagonal = part.hessian[static_cast<std::size_t>(i * (part.depth + 1))];
      if (!(diagonal > 0)) diagonal = 1;
    }
  if (with_drift_) {
    if (parts_.size() == 1)
      choose_target(pool, parts_[0]);
    else
      pool.parallel_for(std::ssize(parts_), 1, [&](std::int64_t begin, std::int64_t) {
        choose_target(pool, parts_[static_cast<std::size_t>(begin)]);
      });
  }
  choose_grid(pool);
}

void LayerProblem::choose_target(ThreadPool& pool, LayerPart& part) {
  const std::int64_t depth = part.depth;
  std::vector<float> factor = part.hessian;
  if (!factorize(pool, depth, factor.data())) return;  // w* = w
  const Block lower = map(factor.data(), depth, depth, depth);
  pool.parallel_for(matrix_.rows, solved_rows, [&](std::int64_t begin, std::int64_t end) {
    float* rows = part.target.data() + begin * depth;
    RowMajor shift(end - begin, depth);
    sgemm(end - begin, depth, depth, 1, {rows, depth}, {part.drift.data(), depth}, 0, {shift.data(), depth});
    lower.transpose().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(shift);
    lower.triangularView<Eigen::Lower>().solveInPlace<Eigen::OnTheRight>(shift);
    if (shift.allFinite()) map(rows, end - begin, depth, depth) += shift;
  });
  part.drift = {};
}

void LayerProblem::choose_grid(ThreadPool& pool) {
  std::vector<float> values(weight_.size()), importance(weight_.size());
  for (const LayerPart& part : parts_)
    for (std::int64_t row = 0; row < matrix_.rows; ++row)
      for (std::int64_t d = 0; d < part.depth; ++d) {
        const auto element = static_cast<std::size_t>(matrix_.element(part.group, row, part.begin + d));
        values[element] = part.target[static_cast<std::size_t>(row * part.depth + d)];
        importance[element] = part.hessian[static_cast<std::size_t>(d * (part.depth + 1))];
      }
  grid_.parameters = choose_by_group(pool, dims_, grid_.granularity, values, importance,
                                     [&](std::span<const float> group, std::span<const float> weights) {
                                       return least_error_parameters(group, weights, rules_);
                                     });
}

float LayerProblem::level(const LayerPart& part, std::int64_t element) const {
  const auto i = static_cast<std::size_t>(element);
  return dequantize(part.codes[i], grid_.parameters[static_cast<std::size_t>(part.scales[i])]);
}

std::vector<float> LayerProblem::errors_of(const LayerPart& part, std::int64_t first, std::int64_t last) const {
  std::vector<float> errors(static_cast<std::size_t>((last - first) * part.depth));
  for (std::size_t i = 0; i < errors.size(); ++i) {
    const std::int64_t element = first * part.depth + static_cast<std::int64_t>(i);
    errors[i] = part.target[static_cast<std::size_t>(element)] - level(part, element);
  }
  return errors;
}

void LayerProblem::round_to_nearest(ThreadPool& pool) {
  pool.parallel_for(std::ssize(parts_), 1, [&](std::int64_t begin, std::int64_t) {
    LayerPart& part = parts_[static_cast<std::size_t>(begin)];
    for (std::size_t i = 0; i < part.codes.size(); ++i)
      part.codes[i] = static_cast<std::int32_t>(
          quantize(part.target[i], grid_.parameters[static_cast<std::size_t>(part.scales[i])], rules_.type));
  });
}

std::vector<std::int32_t> LayerProblem::codes() const {
  std::vector<std::int32_t> codes(weight_.size());
  for (const LayerPart& part : parts_)
    for (std::int64_t row = 0; row < matrix_.rows; ++row)
      for (std::int64_t d = 0; d < part.depth; ++d)
        codes[static_cast<std::size_t>(matrix_.element(part.group, row, part.begin + d))] =
            part.codes[static_cast<std::size_t>(row * part.depth + d)];
  return codes;
}

double LayerProblem::row_error(const LayerPart& part, std::int64_t row) const {
  return quadratic_form(part, errors_of(part, row, row + 1), 0);
}

double LayerProblem::error(ThreadPool& pool) const {
  return sum_over_rows(pool, [&](const LayerPart& part, std::int64_t first, std::int64_t last) {
    return quadratic_form(part, errors_of(part, first, last), 0);
  });
}

double LayerProblem::output_snr_db(ThreadPool& pool) const {
  const auto exact = [&](const LayerPart& part, std::int64_t first, std::int64_t last) {
    std::vector<float> rows;
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t d = 0; d < part.depth; ++d)
        rows.push_back(weight_[static_cast<std::size_t>(matrix_.element(part.group, row, part.begin + d))]);
    return rows;
  };
  const double signal = sum_over_rows(pool, [&](const LayerPart& part, std::int64_t first, std::int64_t last) {
    return quadratic_form(part, exact(part, first, last), part.damping);
  });
  const double noise = sum_over_rows(pool, [&](const LayerPart& part, std::int64_t first, std::int64_t last) {
    std::vector<float> rows = exact(part, first, last);
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i] -= level(part, first * part.depth + static_cast<std::int64_t>(i));
    return quadratic_form(part, rows, part.damping);
  });
  return noise > 0 ? 10 * std::log10(signal / noise) : std::numeric_limits<double>::infinity();
}

double LayerProblem::sum_over_rows(ThreadPool& pool, const RowSum& sum) const {
  const std::vector<RowRange> ranges = row_ranges();
  std::vector<double> sums(ranges.size());
  pool.parallel_for(std::ssize(ranges), 1, [&](std::int64_t begin, std::int64_t) {
    const auto i = static_cast<std::size_t>(begin);
    sums[i] = sum(parts_[ranges[i].part], ranges[i].first, ranges[i].last);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

std::vector<LayerProblem::RowRange> LayerProblem::row_ranges() const {
  std::vector<RowRange> ranges;
  for (std::size_t part = 0; part < parts_.size(); ++part)
    for (std::int64_t row = 0; row < matrix_.rows; row += rows_at_once)
      ranges.push_back({part, row, std::min(matrix_.rows, row + rows_at_once)});
  return ranges;
}

}  // namespace onnxpress
