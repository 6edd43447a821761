#include "graph/ops/upgrade.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/ranges.h>

#include "graph/ops/infer.h"
#include "graph/ops/upgrade_rules.h"

namespace onnxpress {
namespace {

// Every ai.onnx operator of opsets 1 to 27 (onnx 1.22, docs/Operators.md), sorted.
constexpr std::string_view known_operators[] = {
    "Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan",
    "Atanh", "Attention", "AveragePool", "BatchNormalization", "Bernoulli", "BitCast", "BitShift",
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "Cast", "CastLike",
    "CausalConvWithState", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat",
    "ConcatFromSequence", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose",
    "Cos", "Cosh", "CumProd", "CumSum", "DFT", "DeformConv", "DepthToSpace", "DequantizeLinear",
    "Det", "Div", "Dropout", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp",
    "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "GridSample", "GroupNormalization", "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish",
    "Hardmax", "Identity", "If", "ImageDecoder", "InstanceNormalization", "IsInf", "IsNaN", "LRN",
    "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LinearAttention", "Log",
    "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool",
    "MaxRoiPool", "MaxUnpool", "Mean", "MeanVarianceNormalization", "MelWeightMatrix", "Min",
    "Mish", "Mod", "Mul", "Multinomial", "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression",
    "NonZero", "Not", "OneHot", "Optional", "OptionalGetElement", "OptionalHasElement", "Or",
    "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization",
    "RNN", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "RegexFullMatch",
    "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round", "STFT",
    "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "SequenceAt", "SequenceConstruct",
    "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "Shape",
    "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "SoftmaxCrossEntropyLoss",
    "Softplus", "Softsign", "SpaceToDepth", "Split", "SplitToSequence", "Sqrt", "Squeeze",
    "StringConcat", "StringNormalizer", "StringSplit", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "TensorScatter", "TfIdfVectorizer", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu",
    "Unique", "Unsqueeze", "Upsample", "Where", "Xor"};

bool is_known_operator(std::string_view name) {
  return std::binary_search(std::begin(known_operators), std::end(known_operators), name);
}

// Rewrites all ai.onnx nodes of one root graph from opset `from` to `target`; adds what has no
// rewrite to `obstacles`.
std::int64_t upgrade_graph(Graph& root, std::int64_t from, std::int64_t target,
                           bool in_function, std::vector<std::string>& obstacles) {
  std::int64_t rewritten = 0;
  for (std::int64_t version = from + 1; version <= target; ++version) {
    root.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) {
        if (!node->domain().empty()) continue;
        const UpgradeRule* rule = find_upgrade_rule(node->op_type(), version);
        if (!rule) continue;
        const UpgradeContext context{graph, *node, in_function, target};
        if (std::optional<std::string> obstacle = rule->rewrite(context)) {
          obstacles.push_back(fmt::format("{}: opset {}: {}", node->describe(), version, *obstacle));
        } else {
          ++rewritten;
        }
      }
    });
    if (!obstacles.empty()) return rewritten;
  }
  return rewritten;
}

std::int64_t upgrade_in_place(Model& model, std::int64_t target,
                              std::vector<std::string>& obstacles) {
  model.for_each_graph([&](Graph& graph) {
    for (Node* node : graph.nodes()) {
      if (node->domain().empty() && !is_known_operator(node->op_type()) && !model.function(*node))
        obstacles.push_back(fmt::format("{}: not an operator of ai.onnx", node->describe()));
    }
  });
  if (!obstacles.empty()) return 0;

  infer_types(model);
  std::int64_t rewritten = 0;
  const auto raise = [&](Graph& graph, OpsetImports& opsets, bool in_function) {
    const auto found = opsets.find("");
    if (found == opsets.end() || found->second >= target) return;
    rewritten += upgrade_graph(graph, found->second, target, in_function, obstacles);
    if (obstacles.empty()) found->second = target;
  };
  raise(model.graph, model.opsets, false);
  for (const std::unique_ptr<Function>& function : model.functions)
    raise(function->body, function->opsets, true);
  model.ir_version = std::max(model.ir_version, ir_version_of_opset(target));
  return rewritten;
}

void check_target(const Model& model, std::int64_t target) {
  require(target >= 1 && target <= newest_opset, "expected an opset from 1 to {}, found {}",
          newest_opset, target);
  const std::int64_t current = model.graph.opset();
  require(current <= target, "the model is at opset {}: expected a target of at least that, found {}",
          current, target);
}

}  // namespace

std::int64_t ir_version_of_opset(std::int64_t opset) {
  constexpr std::array<std::pair<int, int>, 10> first_opset_of_ir = {
      {{25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9}, {15, 8}, {12, 7}, {11, 6}, {10, 5}, {9, 4}}};
  for (const auto& [first, ir] : first_opset_of_ir) {
    if (opset >= first) return ir;
  }
  return 3;
}

std::vector<std::string> upgrade_obstacles(const Model& model, std::int64_t target) {
  check_target(model, target);
  std::vector<std::string> obstacles;
  upgrade_in_place(*model.clone(), target, obstacles);
  return obstacles;
}

std::int64_t upgrade_opset(Model& model, std::int64_t target) {
  const std::vector<std::string> obstacles = upgrade_obstacles(model, target);
  require(obstacles.empty(), "cannot raise the opset to {}: {}", target,
          fmt::join(obstacles, "; "));
  std::vector<std::string> none;
  return upgrade_in_place(model, target, none);
}

}  // namespace onnxpress
