#include "passes/common/weights.h"

#include <unordered_set>
#include <utility>

#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct OperandWeight {
  std::size_t operand;
  std::optional<std::int64_t> channel_axis;
};

// W and R of recurrent operators are [directions, gates * hidden, ...], embedding tables
// [rows, width]; their rows of the operator table do not describe them as contractions.
std::vector<OperandWeight> lookup_and_recurrent(const Node& node) {
  if (node.is("Gather")) return {{0, 0}};
  if (node.is("LSTM") || node.is("GRU") || node.is("RNN")) return {{1, 1}, {2, 1}};
  return {};
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
    OperandWeight weight{operand, std::nullopt};
    bool contracts = false;
    for (std::size_t axis = 0; axis < roles.size(); ++axis) {
      // A depthwise kernel is contracted over its window alone.
      contracts |= roles[axis].kind == AxisRole::Kind::reduced || roles[axis].kind == AxisRole::Kind::window;
      if (roles[axis].kind == AxisRole::Kind::output) weight.channel_axis = static_cast<std::int64_t>(axis);
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
      std::vector<OperandWeight> operands = contracted_operands(**typed_node++);
      if (kinds == WeightKinds::all && operands.empty()) operands = lookup_and_recurrent(*node);
      for (const OperandWeight& operand : operands) {
        Value* value = node->input(operand.operand);
        if (!value || seen.contains(value)) continue;
        bool relevant = true;
        const std::optional<std::string> reason = obstacle(*value, relevant);
        if (!relevant) continue;
        const bool has_channels = value->constant() && operand.channel_axis &&
                                  *operand.channel_axis < std::ssize(value->constant()->dims());
        if (!selector.matches(*node, *value)) continue;
        seen.insert(value);
        if (reason) {
          if (near_misses) near_misses->push_back({std::string(pass), node->describe(), *reason});
          continue;
        }
        weights.push_back({value, node, operand.operand, has_channels ? operand.channel_axis : std::nullopt});
      }
    }
  });
  return weights;
}

}  // namespace onnxpress
