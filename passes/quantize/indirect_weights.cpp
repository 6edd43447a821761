#include "passes/quantize/indirect_weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "graph/ops/infer.h"
#include "graph/ops/transpose.h"

namespace onnxpress {
namespace {

constexpr std::size_t least_bytes = 1024;  // biases and scales are not worth a line
constexpr int deepest_path = 64;

template <std::size_t n>
bool is_one_of(const Node& node, const std::array<std::string_view, n>& names) {
  return node.domain().empty() && std::ranges::find(names, node.op_type()) != names.end();
}

bool reorders(const Node& node) {
  static constexpr std::array<std::string_view, 7> names{"Transpose", "Reshape", "Squeeze", "Unsqueeze",
                                                         "Flatten",   "Identity", "Cast"};
  return is_one_of(node, names);
}

bool cuts_or_joins(const Node& node) {
  static constexpr std::array<std::string_view, 3> names{"Slice", "Concat", "Split"};
  return is_one_of(node, names);
}

using Axis = std::optional<std::int64_t>;

// The axis of `before` that is axis `along` of `after`: as long, with as many elements in front.
Axis same_axis(const Dims& before, const Dims& after, std::int64_t along) {
  std::int64_t front = 1, passed = 1;
  for (std::int64_t i = 0; i < along; ++i) front *= after[static_cast<std::size_t>(i)];
  for (std::size_t i = 0; i < before.size(); passed *= before[i++])
    if (passed == front && before[i] == after[static_cast<std::size_t>(along)]) return static_cast<std::int64_t>(i);
  return std::nullopt;
}

// The axis of input 0 of `mover` that becomes axis `along` of its result. Nodes of a model with types.
Axis source_axis(const Node& mover, Axis along) {
  if (!along) return along;
  const Type& from = mover.input(0)->type;
  const Type& to = mover.output()->type;
  if (!from.shape || !to.shape || *along >= std::ssize(*to.shape)) return std::nullopt;
  if (mover.is("Transpose"))
    return transpose_permutation(mover, from.shape->size())[static_cast<std::size_t>(*along)];
  const std::optional<Dims> before = concrete(*from.shape), after = concrete(*to.shape);
  return before && after ? same_axis(*before, *after, *along) : std::nullopt;
}

struct Found {
  std::size_t bytes;
  NearMiss miss;
};

// A value and its twin in the model with types.
struct Twin {
  Value* real;
  const Value* typed;
};

struct Path {
  std::vector<std::string> operators;  // each once, the one next to the constant first
  bool whole = true;                   // every element arrives
  int length = 0;
};

class Finder {
 public:
  Finder(const Selector& selector, std::string_view pass, const std::vector<Weight>& direct)
      : selector_(selector), pass_(pass) {
    for (const Weight& weight : direct) seen_.insert(weight.value);
  }

  void visit(Node* node, const Node& typed) {
    for (const OperandWeight& operand : weight_operands(typed, WeightKinds::all))
      if (Value* value = node->input(operand.operand))
        follow({.value = nullptr, .node = node, .operand = operand.operand, .channel_axis = operand.channel_axis,
                .input_axis = operand.input_axis},
               {value, typed.input(operand.operand)}, {});
  }

  IndirectWeights take() {
    std::ranges::stable_sort(left_, std::ranges::greater(), &Found::bytes);
    for (Found& found : left_) result_.left.push_back(std::move(found.miss));
    return std::move(result_);
  }

 private:
  void follow(Weight weight, const Twin& twin, Path path) {
    if (++path.length > deepest_path) return;
    const Node* producer = twin.real->producer();
    if (!producer) return arrive(std::move(weight), *twin.real, path);
    const bool whole = reorders(*producer);
    if (!whole && !cuts_or_joins(*producer)) return;
    if (std::ranges::find(path.operators, producer->op_type()) == path.operators.end())
      path.operators.insert(path.operators.begin(), producer->op_type());
    path.whole &= whole;
    const Node& typed = *twin.typed->producer();
    if (producer->is("Cast") && !is_float(typed.output()->type.elem)) return;
    weight.channel_axis = path.whole ? source_axis(typed, weight.channel_axis) : std::nullopt;
    weight.input_axis = path.whole ? source_axis(typed, weight.input_axis) : std::nullopt;
    // Other inputs of what reorders say how.
    const std::size_t inputs = whole ? 1 : producer->input_count();
    for (std::size_t i = 0; i < inputs; ++i)
      if (producer->input(i)) follow(weight, {producer->input(i), typed.input(i)}, path);
  }

  void arrive(Weight weight, Value& value, const Path& path) {
    const Tensor* tensor = value.constant();
    if (path.operators.empty() || !tensor || !is_float(tensor->dtype()) || bits(tensor->dtype()) < 16 ||
        tensor->byte_size() < least_bytes || value.is_output() || !selector_.matches(*weight.node, value) ||
        !seen_.insert(&value).second)
      return;
    if (path.whole) {
      weight.value = &value;
      result_.moved.push_back(weight);
      return;
    }
    left_.push_back({tensor->byte_size(),
                     {std::string(pass_), weight.node->describe(),
                      fmt::format("'{}' ({} bytes of {}) reaches it through {}: only a constant that becomes the "
                                  "whole operand is quantized",
                                  value.name(), tensor->byte_size(), name(tensor->dtype()),
                                  fmt::join(path.operators, ", "))}});
  }

  const Selector& selector_;
  std::string_view pass_;
  std::unordered_set<const Value*> seen_;
  std::vector<Found> left_;
  IndirectWeights result_;
};

std::vector<Node*> nodes_in_order(Graph& graph) {
  std::vector<Node*> nodes;
  graph.for_each_graph([&](Graph& inner) {
    for (Node* node : inner.nodes()) nodes.push_back(node);
  });
  return nodes;
}

}  // namespace

IndirectWeights indirect_weights(const Model& model, const Selector& selector, std::string_view pass,
                                 const std::vector<Weight>& direct) {
  const std::unique_ptr<Model> typed = model.clone();
  infer_types(*typed);
  const std::vector<Node*> twins = nodes_in_order(typed->graph);
  Finder finder(selector, pass, direct);
  std::size_t index = 0;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (Node* node : graph.nodes()) finder.visit(node, *twins[index++]);
  });
  return finder.take();
}

}  // namespace onnxpress
