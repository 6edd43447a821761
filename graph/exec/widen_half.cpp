#include "graph/exec/widen_half.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <map>
#include <unordered_map>

#include "graph/ir/clone.h"
#include "graph/ops/float_types.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

bool is_half(DType type) { return type == DType::float16 || type == DType::bfloat16; }

bool has_half(const Model& model) {
  bool found = std::ranges::any_of(model.graph.inputs(), [](const Value* input) {
    return input->type.is_tensor() && is_half(input->type.elem);
  });
  model.for_each_graph([&](const Graph& graph) {
    for (const Value* constant : graph.initializers())
      found = found || is_half(constant->type.elem);
  });
  return found;
}

// Operators of ai.onnx all of whose half operands and results are of one type parameter, which no
// attribute names.
constexpr std::array<std::string_view, 78> uniform_operators = {"Abs",
                                                                "Add",
                                                                "ArgMax",
                                                                "ArgMin",
                                                                "AveragePool",
                                                                "BatchNormalization",
                                                                "Ceil",
                                                                "Celu",
                                                                "Clip",
                                                                "Concat",
                                                                "Conv",
                                                                "ConvTranspose",
                                                                "Cos",
                                                                "DepthToSpace",
                                                                "Div",
                                                                "Elu",
                                                                "Equal",
                                                                "Erf",
                                                                "Exp",
                                                                "Expand",
                                                                "Flatten",
                                                                "Floor",
                                                                "GRU",
                                                                "Gather",
                                                                "GatherElements",
                                                                "GatherND",
                                                                "Gelu",
                                                                "Gemm",
                                                                "GlobalAveragePool",
                                                                "GlobalMaxPool",
                                                                "Greater",
                                                                "GreaterOrEqual",
                                                                "GroupNormalization",
                                                                "HardSigmoid",
                                                                "HardSwish",
                                                                "Identity",
                                                                "InstanceNormalization",
                                                                "LRN",
                                                                "LSTM",
                                                                "LayerNormalization",
                                                                "LeakyRelu",
                                                                "Less",
                                                                "LessOrEqual",
                                                                "Log",
                                                                "LogSoftmax",
                                                                "LpNormalization",
                                                                "MatMul",
                                                                "Max",
                                                                "MaxPool",
                                                                "Mean",
                                                                "Min",
                                                                "Mish",
                                                                "Mul",
                                                                "Neg",
                                                                "PRelu",
                                                                "Pad",
                                                                "Pow",
                                                                "RNN",
                                                                "Reciprocal",
                                                                "ReduceMax",
                                                                "ReduceMean",
                                                                "ReduceSum",
                                                                "Relu",
                                                                "Reshape",
                                                                "Selu",
                                                                "Sigmoid",
                                                                "Slice",
                                                                "Softmax",
                                                                "Softplus",
                                                                "Split",
                                                                "Sqrt",
                                                                "Squeeze",
                                                                "Sub",
                                                                "Sum",
                                                                "Tanh",
                                                                "Tile",
                                                                "Transpose",
                                                                "Unsqueeze"};

class Widening {
 public:
  explicit Widening(Model& model) : model_(model), types_(model) { types_.run(); }

  void run() { widen(model_.graph); }

  // Values that were half, by name, and what they are in float32.
  const std::map<std::string, Value*>& constants() const { return constants_; }
  const std::map<std::string, Value*>& results() const { return results_; }

 private:
  void widen(Graph& graph) {
    for (Node* node : graph.nodes()) {
      for (Graph* nested : node->subgraphs()) widen(*nested);
      if (works_on_half(*node)) widen(*node);
    }
  }

  bool works_on_half(const Node& node) const {
    if (!node.domain().empty() || !std::ranges::binary_search(uniform_operators, node.op_type()))
      return false;
    const auto half = [&](const Value* value) { return value && is_half(type_of(*value)); };
    return std::ranges::any_of(node.inputs(), half);
  }

  DType type_of(const Value& value) const {
    if (const auto found = casts_.find(&value); found != casts_.end()) return found->second;
    const Type& type = types_.type(&value);
    return type.is_tensor() ? type.elem : DType::undefined;
  }

  // The value in float32: what a widened node gives, a constant, or a cast.
  Value* wide(Value* value, Node* reader) {
    Value*& known = wide_[value];
    if (known) return known;
    Graph& graph = value->graph();
    if (const Tensor* tensor = value->constant()) {
      known = graph.add_initializer(graph.unique_name(value->name()), tensor->cast(DType::float32));
      constants_.emplace(value->name(), known);
      return known;
    }
    Node* first = graph.holder(reader);
    if (Node* producer = value->producer()) first = after(*producer);
    OpCall cast = make_cast(graph.opset(), DType::float32);
    known = graph
                .add_node({.op_type = cast.op_type,
                           .inputs = {value},
                           .attributes = std::move(cast.attributes)},
                          first)
                ->output();
    return known;
  }

  static Node* after(const Node& node) {
    const std::vector<Node*> nodes = node.graph().nodes();
    const auto next = std::next(std::ranges::find(nodes, &node));
    return next == nodes.end() ? nullptr : *next;
  }

  void widen(Node& node) {
    Graph& graph = node.graph();
    NodeSpec spec{.op_type = node.op_type(), .name = node.name, .inputs = {}, .outputs = {}};
    for (Value* input : node.inputs())
      spec.inputs.push_back(input && is_half(type_of(*input)) ? wide(input, &node) : input);
    ValueMap nothing;
    for (const auto& [name, attribute] : node.attributes())
      spec.attributes.emplace(name, clone_attribute(attribute, &graph, nothing));
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      spec.outputs.emplace_back();
      if (!node.output(i)) spec.omitted_outputs.push_back(i);
    }
    Node* made = graph.add_node(std::move(spec), &node);
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      Value* old = node.output(i);
      if (!old) continue;
      types_.forget(made->output(i));
      if (is_half(type_of(*old))) {
        const DType type = type_of(*old);
        OpCall cast = make_cast(graph.opset(), type);
        Value* narrow = graph
                            .add_node({.op_type = cast.op_type,
                                       .inputs = {made->output(i)},
                                       .attributes = std::move(cast.attributes)},
                                      &node)
                            ->output();
        narrow->type = old->type;
        types_.forget(narrow);  // whose address may have been another's
        casts_[narrow] = type;
        wide_[narrow] = made->output(i);
        if (!old->is_output()) results_.emplace(old->name(), made->output(i));
        graph.replace_uses(old, narrow);
      } else {
        made->output(i)->type = old->type;
        graph.replace_uses(old, made->output(i));
      }
      wide_.erase(old);
      casts_.erase(old);
    }
    graph.remove(&node);
  }

  Model& model_;
  TypeInference types_;
  std::unordered_map<const Value*, DType> casts_;  // back to half, by result
  std::unordered_map<const Value*, Value*> wide_;  // half values in float32
  std::map<std::string, Value*> constants_, results_;
};

}  // namespace

std::unique_ptr<Model> widened_half(const Model& model) {
  if (!has_half(model)) return nullptr;
  std::unique_ptr<Model> wide = model.clone();
  Widening(*wide).run();
  return wide;
}

std::unique_ptr<Model> widened_for_training(const Model& model) {
  if (!has_half(model)) return nullptr;
  std::unique_ptr<Model> wide = model.clone();
  Widening widening(*wide);
  widening.run();
  for (const auto& [name, replacement] : widening.constants()) {
    Graph& graph = replacement->graph();
    Value* const value = graph.find(name);
    if (value->is_output()) continue;
    if (!value->is_unused()) {
      NodeSpec cast{.op_type = "Cast", .inputs = {replacement}};
      cast.attributes["to"] = static_cast<std::int64_t>(value->constant()->dtype());
      graph.replace_uses(value, graph.add_node(std::move(cast), graph.nodes().front())->output());
    }
    graph.remove_initializer(value);
    graph.rename(replacement, name);
  }
  for (const auto& [name, value] : widening.results())
    if (value->graph().unique_name(name) == name) value->graph().rename(value, name);
  return wide;
}

}  // namespace onnxpress
