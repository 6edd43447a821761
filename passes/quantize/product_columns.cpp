// Columns of MatMul, Gemm and the recurrent operators.
#include <algorithm>

#include "graph/ops/gemm.h"
#include "graph/ops/matmul.h"
#include "graph/ops/recurrent.h"
#include "passes/quantize/column_reader.h"

namespace onnxpress {
namespace {

// Of a weight that is the second operand: [..., depth, columns of the result], else [..., columns of
// the result, depth].
WeightMatrix product_matrix(const Dims& weight, bool depth_first) {
  const std::int64_t groups =
      weight.size() > 2 ? element_count(std::span(weight).first(weight.size() - 2)) : std::int64_t{1};
  const std::int64_t first = weight.size() > 1 ? weight[weight.size() - 2] : (depth_first ? weight[0] : 1);
  const std::int64_t last = weight.size() > 1 ? weight.back() : (depth_first ? 1 : weight[0]);
  if (!depth_first) return WeightMatrix::contiguous(groups, first, last);
  WeightMatrix matrix{groups, last, first, first * last, 1, {}};
  for (std::int64_t d = 0; d < first; ++d) matrix.depth_offsets.push_back(d * last);
  return matrix;
}

class MatMulColumns final : public ColumnReader {
 public:
  MatMulColumns(const Node& node, std::size_t operand, const Dims& weight)
      : ColumnReader(product_matrix(weight, operand == 1), *node.input(1 - operand)),
        second_(operand == 1),
        weight_(weight) {}

  std::int64_t count(const Dims& source) const override {
    const MatMulSizes sizes = sizes_of(source);
    return products_of_group(sizes, 0) * vectors(sizes);
  }

  void read(std::span<const float> data, const Dims& source, std::int64_t group, std::span<const std::int64_t> which,
            float* out) const override {
    const MatMulSizes sizes = sizes_of(source);
    const std::vector<std::int64_t>& offsets = second_ ? sizes.a_offsets : sizes.b_offsets;
    std::vector<std::int64_t> starts;  // of the products of this group
    for (std::size_t i = 0; i < offsets.size(); ++i)
      if (group_of(sizes, i) == group) starts.push_back(offsets[i]);
    const std::int64_t depth = sizes.depth;
    for (const std::int64_t column : which) {
      const float* matrix = data.data() + starts[static_cast<std::size_t>(column / vectors(sizes))];
      const std::int64_t vector = column % vectors(sizes);
      if (second_)
        std::copy_n(matrix + vector * depth, depth, out);
      else
        for (std::int64_t d = 0; d < depth; ++d) out[d] = matrix[d * sizes.columns + vector];
      out += depth;
    }
  }

 private:
  MatMulSizes sizes_of(const Dims& source) const {
    return second_ ? MatMulSizes::of(source, weight_) : MatMulSizes::of(weight_, source);
  }
  std::int64_t vectors(const MatMulSizes& sizes) const { return second_ ? sizes.rows : sizes.columns; }
  std::int64_t group_of(const MatMulSizes& sizes, std::size_t product) const {
    return second_ ? sizes.b_offsets[product] / std::max<std::int64_t>(1, sizes.depth * sizes.columns)
                   : sizes.a_offsets[product] / std::max<std::int64_t>(1, sizes.depth * sizes.rows);
  }
  // By broadcasting the same for all groups.
  std::int64_t products_of_group(const MatMulSizes& sizes, std::int64_t group) const {
    std::int64_t found = 0;
    for (std::size_t i = 0; i < sizes.a_offsets.size(); ++i) found += group_of(sizes, i) == group;
    return found;
  }

  bool second_;  // the weight is the second operand
  Dims weight_;
};

class GemmColumns final : public ColumnReader {
 public:
  // `by_rows`: the columns are rows of the data.
  GemmColumns(const Node& node, std::size_t operand, const Dims& weight, bool weight_transposed, bool by_rows)
      : ColumnReader(product_matrix(weight, (operand == 1) != weight_transposed), *node.input(1 - operand)),
        by_rows_(by_rows) {}

  std::int64_t count(const Dims& source) const override {
    require(source.size() == 2 && source[by_rows_ ? 1 : 0] == matrix().depth,
            "expected a matrix with {} values to sum over, found {}", matrix().depth, to_string(source));
    return source[by_rows_ ? 0 : 1];
  }

  void read(std::span<const float> data, const Dims& source, std::int64_t, std::span<const std::int64_t> which,
            float* out) const override {
    const std::int64_t depth = matrix().depth;
    for (const std::int64_t column : which) {
      if (by_rows_)
        std::copy_n(data.data() + column * depth, depth, out);
      else
        for (std::int64_t d = 0; d < depth; ++d)
          out[d] = data[static_cast<std::size_t>(d * source[1] + column)];
      out += depth;
    }
  }

 private:
  bool by_rows_;
};

// W reads X [steps, batch, input] (the first two swapped in layout 1); R the states of the step
// before, which are in Y [steps, directions, batch, hidden] ([batch, steps, directions, hidden]).
class RecurrentColumns final : public ColumnReader {
 public:
  RecurrentColumns(const Node& node, std::size_t operand, const Dims& weight)
      : ColumnReader(WeightMatrix::contiguous(weight[0], weight[1], weight[2]),
                     operand == 1 ? *node.input(0) : *node.output(0)),
        attrs_(RecurrentAttrs::from(node)),
        of_states_(operand == 2) {}

  std::int64_t count(const Dims& source) const override {
    require(source.size() == (of_states_ ? 4U : 3U) && source.back() == matrix().depth,
            "expected a sequence of {} values, found {}", matrix().depth, to_string(source));
    return std::max<std::int64_t>(0, steps(source) - (of_states_ ? 1 : 0)) * batch(source);
  }

  void read(std::span<const float> data, const Dims& source, std::int64_t group, std::span<const std::int64_t> which,
            float* out) const override {
    const std::int64_t depth = matrix().depth;
    for (const std::int64_t column : which) {
      const std::int64_t b = column % batch(source);
      // The last step's state is nobody's input; backwards, the first's.
      const std::int64_t t = column / batch(source) + (of_states_ && attrs_.is_reverse(group) ? 1 : 0);
      std::int64_t row = attrs_.batch_first ? b * steps(source) + t : t * batch(source) + b;
      if (of_states_)
        row = attrs_.batch_first ? row * attrs_.directions() + group
                                 : (t * attrs_.directions() + group) * batch(source) + b;
      std::copy_n(data.data() + row * depth, depth, out);
      out += depth;
    }
  }

 private:
  std::int64_t steps(const Dims& source) const { return source[attrs_.batch_first ? 1 : 0]; }
  std::int64_t batch(const Dims& source) const {
    return attrs_.batch_first ? source[0] : source[of_states_ ? 2 : 1];
  }

  RecurrentAttrs attrs_;
  bool of_states_;
};

}  // namespace

std::unique_ptr<ColumnReader> product_columns(const Node& node, std::size_t operand, const Dims& weight,
                                              std::string& reason) {
  if (!node.input(1 - operand)) {
    reason = "its other operand is missing";
    return nullptr;
  }
  if (node.is("MatMul")) return std::make_unique<MatMulColumns>(node, operand, weight);
  const GemmAttrs attrs = GemmAttrs::from(node);
  if (weight.size() != 2) {
    reason = "a Gemm's weight is not a matrix";
    return nullptr;
  }
  if (operand == 1) return std::make_unique<GemmColumns>(node, operand, weight, attrs.transpose_b, !attrs.transpose_a);
  return std::make_unique<GemmColumns>(node, operand, weight, attrs.transpose_a, attrs.transpose_b);
}

std::unique_ptr<ColumnReader> recurrent_columns(const Node& node, std::size_t operand, const Dims& weight,
                                                std::string& reason) {
  if (operand == 2 && !node.output(0)) {
    reason = "its states are not an output";
    return nullptr;
  }
  return std::make_unique<RecurrentColumns>(node, operand, weight);
}

}  // namespace onnxpress
