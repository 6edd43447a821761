#include "passes/common/weights.h"

#include <unordered_set>
#include <utility>

#include "graph/ops/fused_matmul.h"
#include "graph/ops/gather.h"
#include "graph/ops/gemm.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

std::size_t rank_of(const Node& node, std::size_t operand) {
  const Value* value = node.input(operand);
  return value && value->type.shape ? value->type.shape->size() : 0;
}

std::vector<OperandWeight> matrix(const Node& node, std::size_t operand, bool transposed) {
  const auto rank = static_cast<std::int64_t>(rank_of(node, operand));
  if (rank < 2) return {};
  return {{operand, transposed ? rank - 2 : rank - 1, transposed ? rank - 1 : rank - 2}};
}

std::vector<OperandWeight> contributed(const Node& node) {
  if (node.op_type() == "FusedConv") return {{1, 0, 1}};
  if (node.op_type() == "FusedGemm") return matrix(node, 1, GemmAttrs::from(node).transpose_b);
  if (node.op_type() == "Attention") return matrix(node, 1, false);
  if (node.op_type() == "EmbedLayerNormalization") return {{2, 0, 1}, {3, 0, 1}, {4, 0, 1}};
  if (node.op_type() != "FusedMatMul" && node.op_type() != "TransposeMatMul") return {};
  const FusedMatMulAttrs attrs = FusedMatMulAttrs::from(node);
  std::vector<OperandWeight> found;
  // The columns of the first operand are summed over, as are the rows of the second.
  if (!attrs.a.batch_transposed) found = matrix(node, 0, !attrs.a.transposed);
  if (!attrs.b.batch_transposed)
    for (const OperandWeight& weight : matrix(node, 1, attrs.b.transposed)) found.push_back(weight);
  return found;
}

// W and R of recurrent operators are [directions, gates * hidden, ...], embedding tables
// [rows, width]; their rows of the operator table do not describe them as contractions.
std::vector<OperandWeight> uncontracted(const Node& node) {
  if (node.is("LSTM") || node.is("GRU") || node.is("RNN")) return {{1, 1, 2}, {2, 1, 2}};
  if (node.is("MatMul")) {  // whose other operand has an unknown rank
    std::vector<OperandWeight> found = matrix(node, 0, true);
    for (const OperandWeight& right : matrix(node, 1, false)) found.push_back(right);
    return found;
  }
  if (node.domain() == "com.microsoft") return contributed(node);
  if (!node.is("Gather")) return {};
  const auto rank = static_cast<std::int64_t>(rank_of(node, 0));
  if (rank < 2) return {};  // a list of numbers has no rows
  const std::int64_t along = normalize_axis(gather_axis(node), static_cast<std::size_t>(rank));
  return {{0, along, along == rank - 1 ? std::nullopt : std::optional(rank - 1)}};
}

std::vector<OperandWeight> contracted_operands(const Node& node) {
  const OpDef* op = operators().find(node);
  if (!op || !op->axes) return {};
  std::vector<OperandWeight> found;
  const OperandAxes operands = op->axes(node);
  for (std::size_t operand = 0; operand < operands.size(); ++operand) {
    const std::vector<AxisRole>& roles = operands[operand];
    const Value* value = node.input(operand);
    if (!value || !value->type.shape || value->type.shape->size() != roles.size()) continue;
    OperandWeight weight{operand, std::nullopt, std::nullopt};
    bool contracts = false;
    std::int64_t longest = 0;
    for (std::size_t axis = 0; axis < roles.size(); ++axis) {
      // A depthwise kernel is contracted over its window alone.
      contracts |= roles[axis].kind == AxisRole::Kind::reduced || roles[axis].kind == AxisRole::Kind::window;
      if (roles[axis].kind == AxisRole::Kind::output) weight.channel_axis = static_cast<std::int64_t>(axis);
      const Dim& dim = (*value->type.shape)[axis];
      if (roles[axis].kind != AxisRole::Kind::reduced || !dim.is_known() || dim.value() <= longest) continue;
      longest = dim.value();
      weight.input_axis = static_cast<std::int64_t>(axis);
    }
    // The slices of axis 1 are one output channel of every group.
    if (node.is("ConvTranspose") && !weight.channel_axis) weight.channel_axis = 1;
    if (contracts) found.push_back(weight);
  }
  return found;
}

// Why the operand is not a weight to work on, or nothing when it is (or is no constant at all:
// `relevant` is false then).
std::optional<std::string> obstacle(const Value& value, bool& relevant) {
  relevant = true;
  if (const Node* producer = value.producer()) {
    if (producer->is("Constant"))
      return fmt::format("'{}' is made by a Constant node; run simplify first", value.name());
    if (producer->is("DequantizeLinear") && producer->input(0) && producer->input(0)->is_constant())
      return fmt::format("'{}' is quantized already", value.name());
    relevant = false;
    return std::nullopt;
  }
  if (value.is_input() && value.initializer())
    return fmt::format("'{}' is an overridable input", value.name());
  if (!value.is_constant()) {
    relevant = false;
    return std::nullopt;
  }
  if (!value.constant()) return fmt::format("'{}' is a sparse tensor", value.name());
  const DType type = value.constant()->dtype();
  if (!is_float(type) || bits(type) < 16)
    return fmt::format("'{}' is {}, not floating-point", value.name(), name(type));
  if (value.is_output()) return fmt::format("'{}' is a graph output", value.name());
  return std::nullopt;
}

}  // namespace

std::vector<OperandWeight> weight_operands(const Node& node, WeightKinds kinds) {
  std::vector<OperandWeight> operands = contracted_operands(node);
  if (kinds == WeightKinds::all && operands.empty()) operands = uncontracted(node);
  return operands;
}

std::vector<Weight> collect_weights(const Model& model, WeightKinds kinds, const Selector& selector,
                                    std::string_view pass, std::vector<NearMiss>* near_misses) {
  selector.require_all_match(model);
  // Roles of axes depend on types, which files need not carry.
  const std::unique_ptr<Model> typed = model.clone();
  infer_types(*typed);
  std::vector<const Node*> typed_nodes;
  std::as_const(typed->graph).for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) typed_nodes.push_back(node);
  });
  auto typed_node = typed_nodes.begin();
  std::vector<Weight> weights;
  std::unordered_set<const Value*> seen;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (Node* node : graph.nodes()) {
      for (const OperandWeight& operand : weight_operands(**typed_node++, kinds)) {
        Value* value = node->input(operand.operand);
        if (!value || seen.contains(value)) continue;
        bool relevant = true;
        const std::optional<std::string> reason = obstacle(*value, relevant);
        if (!relevant) continue;
        const auto within = [value](std::optional<std::int64_t> axis) {
          const bool known = value->constant() && axis && *axis < std::ssize(value->constant()->dims());
          return known ? axis : std::nullopt;
        };
        if (!selector.matches(*node, *value)) continue;
        seen.insert(value);
        if (reason) {
          if (near_misses) near_misses->push_back({std::string(pass), node->describe(), *reason});
          continue;
        }
        weights.push_back({value, node, operand.operand, within(operand.channel_axis), within(operand.input_axis)});
      }
    }
  });
  return weights;
}

}  // namespace onnxpress
