#include "graph/ops/float_types.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "graph/ir/clone.h"
#include "graph/ops/attributes.h"

namespace onnxpress {
namespace {

struct Row {
  std::string_view op;
  std::int64_t float16, bfloat16;  // first opset that takes the type; 0: none
};

// Operators of ai.onnx whose floats may all be of either type (onnx 1.22, docs/Changelog.md),
// sorted. Left out: generators of random or constant numbers, sequences and control flow, which
// have no arithmetic; windows, spectra, regions of interest and quantization, where the numbers are
// coordinates or scales; losses.
constexpr Row rows[] = {
    {"Abs", 1, 13},
    {"Acos", 7, 22},
    {"Acosh", 9, 22},
    {"Add", 1, 13},
    {"ArgMax", 1, 13},
    {"ArgMin", 1, 13},
    {"Asin", 7, 22},
    {"Asinh", 9, 22},
    {"Atan", 7, 22},
    {"Atanh", 9, 22},
    {"Attention", 23, 23},
    {"AveragePool", 1, 22},
    {"BatchNormalization", 1, 14},
    {"Ceil", 1, 13},
    {"CenterCropPad", 18, 18},
    {"Clip", 1, 13},
    {"Col2Im", 18, 18},
    {"Compress", 9, 0},
    {"Concat", 1, 13},
    {"Conv", 1, 22},
    {"ConvTranspose", 1, 22},
    {"Cos", 7, 22},
    {"Cosh", 9, 22},
    {"CumProd", 26, 26},
    {"CumSum", 14, 14},
    {"DepthToSpace", 1, 13},
    {"Div", 1, 13},
    {"Dropout", 1, 13},
    {"Einsum", 12, 0},
    {"Elu", 1, 22},
    {"Equal", 11, 13},
    {"Erf", 9, 13},
    {"Exp", 1, 13},
    {"Expand", 8, 13},
    {"Flatten", 1, 13},
    {"Floor", 1, 13},
    {"GRU", 1, 22},
    {"Gather", 1, 13},
    {"GatherElements", 11, 13},
    {"GatherND", 11, 13},
    {"Gelu", 20, 20},
    {"Gemm", 1, 13},
    {"GlobalAveragePool", 1, 22},
    {"GlobalLpPool", 1, 22},
    {"GlobalMaxPool", 1, 22},
    {"Greater", 1, 13},
    {"GreaterOrEqual", 12, 16},
    {"GridSample", 16, 22},
    {"GroupNormalization", 21, 21},
    {"HardSigmoid", 1, 22},
    {"HardSwish", 14, 22},
    {"Hardmax", 1, 13},
    {"Identity", 1, 13},
    {"InstanceNormalization", 1, 22},
    {"IsNaN", 9, 13},
    {"LRN", 1, 13},
    {"LSTM", 1, 22},
    {"LayerNormalization", 17, 17},
    {"LeakyRelu", 1, 16},
    {"Less", 1, 13},
    {"LessOrEqual", 12, 16},
    {"Log", 1, 13},
    {"LogSoftmax", 1, 13},
    {"LpNormalization", 1, 22},
    {"LpPool", 1, 22},
    {"MatMul", 1, 13},
    {"Max", 1, 13},
    {"MaxPool", 1, 22},
    {"Mean", 1, 13},
    {"MeanVarianceNormalization", 9, 13},
    {"Min", 1, 13},
    {"Mish", 18, 22},
    {"Mod", 10, 13},
    {"Mul", 1, 13},
    {"Neg", 1, 13},
    {"NonZero", 9, 13},
    {"OneHot", 9, 0},
    {"PRelu", 1, 16},
    {"Pad", 1, 13},
    {"Pow", 1, 13},
    {"RMSNormalization", 23, 23},
    {"RNN", 1, 22},
    {"Reciprocal", 1, 13},
    {"ReduceL1", 1, 13},
    {"ReduceL2", 1, 13},
    {"ReduceLogSum", 1, 13},
    {"ReduceLogSumExp", 1, 13},
    {"ReduceMax", 1, 13},
    {"ReduceMean", 1, 13},
    {"ReduceMin", 1, 13},
    {"ReduceProd", 1, 13},
    {"ReduceSum", 1, 13},
    {"ReduceSumSquare", 1, 13},
    {"Relu", 1, 13},
    {"Reshape", 1, 13},
    {"Resize", 10, 13},
    {"ReverseSequence", 10, 0},
    {"RotaryEmbedding", 23, 23},
    {"Round", 11, 22},
    {"Scatter", 9, 0},
    {"ScatterElements", 11, 13},
    {"ScatterND", 11, 13},
    {"Selu", 1, 22},
    {"Shape", 1, 13},
    {"Shrink", 9, 0},
    {"Sigmoid", 1, 13},
    {"Sign", 9, 13},
    {"Sin", 7, 22},
    {"Sinh", 9, 22},
    {"Size", 1, 13},
    {"Slice", 1, 13},
    {"Softmax", 1, 13},
    {"Softplus", 1, 22},
    {"Softsign", 1, 22},
    {"SpaceToDepth", 1, 13},
    {"Split", 1, 13},
    {"Sqrt", 1, 13},
    {"Squeeze", 1, 13},
    {"Sub", 1, 13},
    {"Sum", 1, 13},
    {"Swish", 24, 24},
    {"Tan", 7, 22},
    {"Tanh", 1, 13},
    {"TensorScatter", 24, 24},
    {"ThresholdedRelu", 10, 22},
    {"Tile", 1, 13},
    {"TopK", 1, 24},
    {"Transpose", 1, 13},
    {"Trilu", 14, 14},
    {"Unsqueeze", 1, 13},
    {"Upsample", 1, 0},
    {"Where", 9, 16},
};

// Operators of com.microsoft that take float16 (their documentation, docs/ContribOperators.md).
constexpr std::string_view contrib_operators[] = {
    "Attention", "BiasGelu",           "FastGelu",  "FusedMatMul",
    "Gelu",      "MultiHeadAttention", "QuickGelu", "SkipLayerNormalization"};

std::optional<Row> row_of(const Node& node) {
  if (node.domain() == "com.microsoft") {
    const bool known =
        std::ranges::find(contrib_operators, node.op_type()) != std::end(contrib_operators);
    return known ? std::optional(Row{node.op_type(), 1, 0}) : std::nullopt;
  }
  if (!node.domain().empty()) return std::nullopt;
  if (node.is("Cast")) return Row{"Cast", 1, 13};
  const auto found = std::ranges::lower_bound(rows, node.op_type(), {}, &Row::op);
  return found != std::end(rows) && found->op == node.op_type() ? std::optional(*found)
                                                                : std::nullopt;
}

// 0: no version takes the type.
std::int64_t first_opset(const Node& node, DType type) {
  const std::optional<Row> row = row_of(node);
  return !row ? 0 : type == DType::float16 ? row->float16 : row->bfloat16;
}

// Inputs that stay float32: scales and coordinates, ratios, an exponent that may have a type of its
// own.
bool stays(const Node& node, std::size_t input) {
  if (node.is("Resize")) return input == 1 || input == 2;
  if (node.is("Upsample") || node.is("GridSample")) return input == 1;
  if (node.is("Dropout")) return input > 0;
  if (node.is("Pow")) return input == 1 && node.opset() >= 12;
  return false;
}

// Statistics beside the first output have a type of their own.
bool has_statistics(const Node& node) {
  return (node.is("LayerNormalization") || node.is("BatchNormalization") ||
          node.is("SkipLayerNormalization", "com.microsoft")) &&
         node.output_count() > 1;
}

// Cast's `to` was the name of the type before opset 6.
Attribute type_attribute(std::int64_t opset, DType type) {
  if (opset >= 6) return static_cast<std::int64_t>(type);
  return type == DType::float16 ? "FLOAT16" : type == DType::bfloat16 ? "BFLOAT16" : "FLOAT";
}

}  // namespace

std::int64_t narrow_float_opset(const Node& node, DType type) {
  return node.domain().empty() ? first_opset(node, type) : 0;
}

std::optional<NarrowFloatForm> narrow_float_form(const Node& node, DType type,
                                                 const TypeInference& types, std::string* reason) {
  const auto refuse = [&](std::string why) -> std::optional<NarrowFloatForm> {
    if (reason) *reason = std::move(why);
    return std::nullopt;
  };
  const auto type_of = [&](const Value* value) { return types.type(value); };
  NarrowFloatForm form;
  bool known = true, floats = false;
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    if (node.input(i) == nullptr) continue;
    const Type found = type_of(node.input(i));
    known = known && found.is_tensor() && found.elem != DType::undefined;
    floats = floats || found.elem == DType::float32;
    if (found.elem == DType::float32 && !stays(node, i)) form.inputs.push_back(i);
  }
  for (std::size_t i = 0; i < node.output_count(); ++i) {
    if (node.output(i) == nullptr) continue;
    const Type found = type_of(node.output(i));
    known = known && found.is_tensor() && found.elem != DType::undefined;
    floats = floats || found.elem == DType::float32;
    if (found.elem == DType::float32) form.outputs.push_back(i);
  }
  if (!floats) return std::nullopt;
  const std::int64_t since = first_opset(node, type);
  if (since == 0)
    return refuse(
        fmt::format("{} stays float32: it has no form for {}", node.op_type(), name(type)));
  if (node.domain().empty() && node.opset() < since)
    return refuse(fmt::format("{} takes {} from opset {} on, the model has {}", node.op_type(),
                              name(type), since, node.opset()));
  if (!known) return refuse("the element types of its inputs and outputs are not all known");
  if (has_statistics(node)) return refuse("its statistics are outputs of a type of their own");
  for (const auto& [key, attribute] : node.attributes())
    if (!attribute.ref.empty() || !attribute.subgraphs().empty())
      return refuse("it has a subgraph or a parameter");
  ValueMap map;
  form.attributes = clone_attributes(node, &node.graph(), map);
  if (node.is("Cast") && !form.outputs.empty())
    form.attributes["to"] = type_attribute(node.opset(), type);
  return form;
}

bool multiplies_matrices(const Node& node) {
  constexpr std::string_view standard[] = {"Attention", "Conv", "ConvTranspose", "Einsum", "GRU",
                                           "Gemm",      "LSTM", "MatMul",        "RNN"};
  constexpr std::string_view contrib[] = {"Attention", "FusedMatMul", "MultiHeadAttention"};
  if (node.domain() == "com.microsoft")
    return std::ranges::find(contrib, node.op_type()) != std::end(contrib);
  return node.domain().empty() && std::ranges::find(standard, node.op_type()) != std::end(standard);
}

OpCall make_cast(std::int64_t opset, DType to) {
  OpCall call{.op_type = "Cast"};
  call.attributes["to"] = type_attribute(opset, to);
  return call;
}

}  // namespace onnxpress
