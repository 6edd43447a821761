// Where scheme=dynamic can compute in integers: operators that read a weight which is a constant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "passes/common/weights.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// The integer form of an operator.
enum class DynamicForm {
  product,      // MatMul, Gemm: MatMulInteger
  convolution,  // Conv of one group: ConvInteger
  lookup,       // Gather of an embedding table: Gather of its codes
  recurrent,    // LSTM: com.microsoft.DynamicQuantizeLSTM
  weights,      // any other: the float operator reads the weight from DequantizeLinear
};
std::string_view operator_name(DynamicForm form);

// The node's name, or that of its first output.
const std::string& known_name(const Node& node);

// One read of a weight by an operator that becomes an integer one.
struct DynamicSite {
  Node* node = nullptr;
  std::size_t operand = 0;
  // A product: it multiplies with the weight's transpose (transB, or a Transpose on the way).
  bool transposed = false;
  // The weight's axis of output channels (rows of an embedding); nothing: not known.
  std::optional<std::int64_t> channel_axis;
  // The axis of the weight that is summed over (along the rows of an embedding); nothing: not known.
  std::optional<std::int64_t> input_axis;
};

// A constant and its readers. Those that are not in `sites` read it through DequantizeLinear.
struct DynamicWeight {
  Weight weight;  // of the first reader
  DynamicForm form = DynamicForm::weights;
  std::vector<DynamicSite> sites;  // in node order
  bool moved = false;              // reaches its first reader through Identity or Transpose
  int bits = 8;
};

// The selected weights of the main graph and its subgraphs, in node order. Misses tell of operators
// that stay in float and why, and of weights that get DequantizeLinear only.
std::vector<DynamicWeight> find_dynamic_weights(const Model& model, const QuantizeRequest& request,
                                                std::vector<NearMiss>& misses);

}  // namespace onnxpress
