#include "passes/quantize/column_reader.h"

#include <fmt/format.h>

#include <numeric>

namespace onnxpress {

WeightMatrix WeightMatrix::contiguous(std::int64_t groups, std::int64_t rows, std::int64_t depth) {
  WeightMatrix matrix{groups, rows, depth, rows * depth, depth, {}};
  matrix.depth_offsets.resize(static_cast<std::size_t>(depth));
  std::iota(matrix.depth_offsets.begin(), matrix.depth_offsets.end(), std::int64_t{0});
  return matrix;
}

std::unique_ptr<ColumnReader> column_reader(const Node& node, std::size_t operand, const Dims& weight,
                                            std::string& reason) {
  const bool convolution = node.is("Conv") || node.is("FusedConv", "com.microsoft");
  if (convolution && operand == 1 && weight.size() >= 3) return convolution_columns(node, weight);
  if (node.is("ConvTranspose") && operand == 1 && weight.size() >= 3)
    return transposed_convolution_columns(node, weight);
  const bool product = node.is("MatMul") || node.is("Gemm") || node.is("FusedGemm", "com.microsoft");
  if (product && operand < 2 && !weight.empty()) return product_columns(node, operand, weight, reason);
  const bool recurrent = node.is("LSTM") || node.is("GRU") || node.is("RNN");
  if (recurrent && (operand == 1 || operand == 2) && weight.size() == 3)
    return recurrent_columns(node, operand, weight, reason);
  reason = fmt::format("{} is not read as a product of its input {}", node.op_type(), operand);
  return nullptr;
}

}  // namespace onnxpress
