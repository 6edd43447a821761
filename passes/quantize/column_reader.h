// A weight as the matrix that it is in its operator, and the columns that the operator multiplies it
// with.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

// The products that an operator computes with a weight: for every group and many columns x of that
// group, y[rows] = w[rows, depth] * x[depth].
struct WeightMatrix {
  std::int64_t groups = 1, rows = 0, depth = 0;
  std::int64_t group_stride = 0, row_stride = 0;  // in elements of the tensor
  std::vector<std::int64_t> depth_offsets;        // the same, by index along `depth`

  std::int64_t element(std::int64_t group, std::int64_t row, std::int64_t d) const {
    return group * group_stride + row * row_stride + depth_offsets[static_cast<std::size_t>(d)];
  }
  std::int64_t size() const { return groups * rows * depth; }
  // The matrix of a tensor whose elements lie [groups, rows, depth].
  static WeightMatrix contiguous(std::int64_t groups, std::int64_t rows, std::int64_t depth);
  bool operator==(const WeightMatrix&) const = default;
};

// How one operator reads its columns. Every group has as many; those of the same index belong
// together (one position of one sample).
class ColumnReader {
 public:
  virtual ~ColumnReader() = default;
  const WeightMatrix& matrix() const { return matrix_; }
  // The value whose tensors hold the columns.
  const Value& source() const { return *source_; }
  // Columns of each group in a tensor of these dims. Throws Error when they do not fit the operator.
  virtual std::int64_t count(const Dims& source) const = 0;
  // Columns `which` of `group`, one after another: out[which.size(), depth]. `data` is the tensor's.
  virtual void read(std::span<const float> data, const Dims& source, std::int64_t group,
                    std::span<const std::int64_t> which, float* out) const = 0;

 protected:
  ColumnReader(WeightMatrix matrix, const Value& source) : matrix_(std::move(matrix)), source_(&source) {}

 private:
  WeightMatrix matrix_;
  const Value* source_;
};

// For input `operand` of `node`, a weight of these dims: Conv, ConvTranspose (im2col; FusedConv of
// com.microsoft too), MatMul, Gemm (FusedGemm), and LSTM, GRU and RNN, whose W reads X and whose R
// reads the states before, that is Y (of a GRU, the states before they are reset). Padding steps of
// shorter sequences count as they are. Nothing, and why in `reason`, for other operators.
std::unique_ptr<ColumnReader> column_reader(const Node& node, std::size_t operand, const Dims& weight,
                                            std::string& reason);

// By operator family; `operand` and dims fit the operator.
std::unique_ptr<ColumnReader> convolution_columns(const Node& node, const Dims& weight);
std::unique_ptr<ColumnReader> transposed_convolution_columns(const Node& node, const Dims& weight);
std::unique_ptr<ColumnReader> product_columns(const Node& node, std::size_t operand, const Dims& weight,
                                              std::string& reason);
std::unique_ptr<ColumnReader> recurrent_columns(const Node& node, std::size_t operand, const Dims& weight,
                                                std::string& reason);

}  // namespace onnxpress
