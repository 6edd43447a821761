// Rounding the weight of one layer so that its output changes least: per group of rows, the codes
// that minimize the sum over columns of |w x - w' x'|^2, where x' are the columns x of the model as
// rounded so far. With H = sum x' x'^T that is (w* - w') H (w* - w')^T and a constant, where
// w* = w (sum x x'^T) H^-1: weights that make up for what was rounded before.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "graph/base/threads.h"
#include "passes/quantize/column_reader.h"
#include "passes/quantize/layer_inputs.h"
#include "passes/quantize/mse_grid.h"

namespace onnxpress {

// Rows of one group over a range of its depth. Deep layers are cut: H is taken as block-diagonal.
struct LayerPart {
  std::int64_t group = 0, begin = 0, depth = 0;
  std::vector<float> hessian;  // [depth, depth], the mean over columns of x' x'^T
  std::vector<float> drift;    // [depth, depth], of (x - x') x'^T; empty: no difference
  float damping = 0;           // what the diagonal of `hessian` has on top
  std::vector<float> target;   // [rows, depth]: w*
  std::vector<std::int32_t> scales;  // [rows, depth]: which of the grid's parameters
  std::vector<std::int32_t> codes;   // [rows, depth]
};

class LayerProblem {
 public:
  // Of a weight whose elements are finite. The layer's columns are folded in before prepare() is
  // called, `with_drift` when those of a block may differ.
  LayerProblem(WeightMatrix matrix, Dims dims, std::vector<float> weight, Granularity granularity, ScaleRules rules,
               bool with_drift);

  static std::size_t bytes(const WeightMatrix& matrix, bool with_drift);  // of the sums over columns
  void add(ThreadPool& pool, const ColumnBlock& block);
  std::int64_t columns() const { return columns_; }

  // Ends the sums, adds `damping` times the mean of the diagonal to it (of H, also what keeps w* near
  // w), and chooses w* and the grid of least error weighted by the diagonal.
  void prepare(ThreadPool& pool, double damping);
  // GPTQ (Frantar et al. 2022, arXiv 2210.17323): column by column, each rounded to nearest after
  // the errors of those before it have been spread over those that follow, by the Cholesky factor of
  // H. This is the form of QuIP (Chee et al. 2023, arXiv 2307.13304, theorem 6), which needs no
  // inverse. `by_importance`: large diagonal elements first (act-order).
  void round_columns(ThreadPool& pool, bool by_importance);
  // Lowers the error by turns until it settles, `most` turns at most: every code in turn to its best
  // given all others (coordinate descent, QuantEase: Behdin et al. 2023, arXiv 2309.01885), scales by
  // least squares, zero points by whole steps.
  void refine(ThreadPool& pool, int most);
  // Both of them; where rows are short, from several scales around those of prepare(), the codes by
  // search (closest_codes.h). Of these, rows that share no scale take what errs least each.
  void round(ThreadPool& pool, bool by_importance, int most);
  // Every element of w* on its nearest level.
  void round_to_nearest(ThreadPool& pool);

  double error(ThreadPool& pool) const;  // (w* - w') H (w* - w')^T
  // Signal to noise of the output for the columns x', in dB: w H w^T over (w - w') H (w - w')^T.
  double output_snr_db(ThreadPool& pool) const;

  const WeightMatrix& matrix() const { return matrix_; }
  const ScaleRules& rules() const { return rules_; }
  std::span<const float> weight() const { return weight_; }
  std::vector<LayerPart>& parts() { return parts_; }
  const std::vector<LayerPart>& parts() const { return parts_; }
  const WeightGrid& grid() const { return grid_; }
  // Codes in the order of the tensor.
  std::vector<std::int32_t> codes() const;

 private:
  void choose_target(ThreadPool& pool, LayerPart& part);
  void choose_grid(ThreadPool& pool);
  // Rows that one thread works on.
  struct RowRange {
    std::size_t part;
    std::int64_t first, last;
  };
  static constexpr std::int64_t rows_at_once = 64;
  std::vector<RowRange> row_ranges() const;
  using RowSum = std::function<double(const LayerPart&, std::int64_t first, std::int64_t last)>;
  double sum_over_rows(ThreadPool& pool, const RowSum& sum) const;

  // Gradients are (w* - w') H, by part.
  using Gradients = std::vector<std::vector<float>>;
  Gradients gradients(ThreadPool& pool) const;
  void round_rows(const RowRange& rows, const std::vector<std::int64_t>& order, const std::vector<float>& feedback);
  void refine_codes(const RowRange& rows, std::vector<float>& gradient);
  void search_codes(ThreadPool& pool, const std::vector<std::vector<float>>& factors);
  // For every row of every part, the index of the set of rows that it shares scales with.
  std::vector<std::size_t> row_sets() const;
  std::vector<double> set_errors(ThreadPool& pool, const std::vector<std::size_t>& sets) const;
  void refine_scales(ThreadPool& pool, Gradients& gradients, bool zero_points);
  float level(const LayerPart& part, std::int64_t element) const;
  double row_error(const LayerPart& part, std::int64_t row) const;
  std::vector<float> errors_of(const LayerPart& part, std::int64_t first, std::int64_t last) const;

  WeightMatrix matrix_;
  Dims dims_;
  std::vector<float> weight_;  // in the order of the tensor
  ScaleRules rules_;
  WeightGrid grid_;
  bool with_drift_;
  std::int64_t columns_ = 0;
  std::vector<LayerPart> parts_;
};

// L of H = L L^T, in place (lower triangle, zeros above). False when H is not positive definite.
bool factorize(ThreadPool& pool, std::int64_t size, float* matrix);

}  // namespace onnxpress
