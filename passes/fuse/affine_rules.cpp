#include "passes/fuse/affine_rules.h"

#include <algorithm>

#include "graph/ops/arithmetic.h"
#include "passes/common/linear_operator.h"

namespace onnxpress {
namespace {

// Another operator that reads the same weight, and the same scale and shift behind it, as where a
// head of a detector is used on maps of several sizes.
struct Twin {
  Node* linear;
  Node* affine;
};

// What folding a match changes.
struct Fold {
  LinearOperator linear;
  AffineNode affine;
  Value* bias = nullptr;        // the constant there is; nullptr: none
  std::optional<Tensor> shift;  // the bias there will be
  std::vector<Twin> twins;      // the other readers of the weight, all of which take part
};

Value* bias_of(const Match& match) {
  if (Value* added = match.value("bias")) return added;
  const Node& linear = *match.node("linear");
  return linear.is("MatMul") ? nullptr : linear.input(2);
}

bool any_not_zero(const Tensor& tensor) {
  const std::vector<float> values = tensor.to_floats();
  return std::ranges::any_of(values, [](float value) { return value != 0; });
}

bool same_constant(const Value* a, const Value* b) {
  return a == b || (a && b && a->constant() && b->constant() && a->constant()->equals(*b->constant()));
}

// What `use` of the weight is if it is a twin of the fold's operator, whose scale and shift the
// node `root` is.
std::optional<Twin> twin(const Match& match, const Fold& fold, const Use& use) {
  const Node& root = *match.root;
  const Node& node = *fold.linear.node;
  Node* other = use.node;
  if (use.index != 1 || &other->graph() != &node.graph() || other->op_type() != node.op_type() ||
      other->domain() != node.domain())
    return std::nullopt;
  const LinearOperator linear = LinearOperator::of(*other);
  if (!linear.same_channels(fold.linear) || !same_constant(other->input(2), node.input(2)))
    return std::nullopt;
  Value* result = other->output();
  if (!result || !is_read_once(*result)) return std::nullopt;
  const Use& reader = result->uses()[0];
  if (reader.node->op_type() != root.op_type() || reader.node->domain() != root.domain() ||
      &reader.node->graph() != &root.graph() || reader.node->output()->is_unused())
    return std::nullopt;
  std::string reason;
  const std::optional<AffineNode> affine = read_affine(
      *reader.node, reader.index, linear.output_view(match.type(result)), reason);
  if (!affine || affine->affine.scale != fold.affine.affine.scale ||
      affine->affine.shift != fold.affine.affine.shift)
    return std::nullopt;
  return Twin{other, reader.node};
}

// Of a weight with other readers: whether all are twins; nothing: no.
std::optional<std::vector<Twin>> all_twins(const Match& match, const Fold& fold) {
  const Value* weight = fold.linear.node->input(1);
  std::vector<Twin> twins;
  if (weight->is_output() || match.node("add") || match.value("moved")) return std::nullopt;
  for (const Use& use : weight->uses()) {
    if (use.node == fold.linear.node && use.index == 1) continue;
    std::optional<Twin> found = twin(match, fold, use);
    if (!found) return std::nullopt;
    twins.push_back(*found);
  }
  return twins;
}

std::optional<Fold> plan(const Match& match, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  Node& node = *match.node("linear");
  const Node& root = *match.root;
  if (!root.output() || root.output()->is_unused()) return miss("nothing reads its result");
  if (std::optional<std::string> obstacle = LinearOperator::obstacle(node)) return miss(*obstacle);
  Fold fold{.linear = LinearOperator::of(node), .bias = bias_of(match)};
  const std::int64_t channels = fold.linear.out.count;
  const Node* add = match.node("add");
  const Value* source = add ? add->output() : node.output();
  const Value* moved = match.value("moved");
  ChannelView view = fold.linear.output_view(match.type(source));
  if (moved) {  // channels are no longer where they were: only one value for all may pass
    const Type& type = match.type(moved);
    if (!type.shape) return miss(fmt::format("the rank of '{}' is not known", moved->name()));
    view = {.count = channels, .rank = type.shape->size()};
    const Value* operand = root.input(root.input(0) == moved ? 1 : 0);
    if (operand->constant()->size() != 1)
      return miss(fmt::format("'{}' has {} values, expected one behind {}", operand->name(),
                              operand->constant()->size(), moved->producer()->describe()));
  }
  std::optional<AffineNode> affine =
      read_affine(root, root.input(0) == (moved ? moved : source) ? 0 : 1, view, reason);
  if (!affine) return std::nullopt;
  fold.affine = std::move(*affine);

  const Value* weight = node.input(1);
  if (fold.affine.scales && !is_read_once(*weight)) {
    std::optional<std::vector<Twin>> twins = all_twins(match, fold);
    if (!twins)
      return miss(fmt::format(
          "weight '{}' has another reader, without the same scale and shift behind it",
          weight->name()));
    fold.twins = std::move(*twins);
  }
  if (fold.linear.beta == 0) return miss("its bias is multiplied by beta=0");
  if (fold.bias && !fold.bias->constant())
    return miss(fmt::format("its bias '{}' is not a constant", fold.bias->name()));
  if (add && !is_aligned_last(*add, add->input(0) == fold.bias ? 0 : 1, std::nullopt,
                              fold.bias->constant()->rank()))
    return miss(fmt::format("{} adds along other axes than the last", add->describe()));
  const bool channels_last = fold.linear.is_product();
  if (fold.bias && !is_channel_bias(*fold.bias->constant(), channels, channels_last))
    return miss(fmt::format("its bias '{}' has shape {}, expected one value per channel",
                            fold.bias->name(), to_string(fold.bias->constant()->dims())));

  const ChannelAffine& by = fold.affine.affine;
  Tensor old = fold.bias ? *fold.bias->constant() : Tensor();
  // A convolution's bias is a vector; a Gemm's is multiplied by beta, also where there is none yet.
  if (!channels_last && !old.defined()) old = Tensor(fold.linear.weight->dtype(), {channels});
  ChannelAffine scaled = by;
  for (double& value : scaled.shift) value /= fold.linear.beta;
  Tensor bias = affine_bias(old, scaled, fold.linear.weight->dtype());
  if (!fold.bias && !any_not_zero(bias)) return fold;
  const std::size_t freed =
      constant_bytes_only_for(root) + least_node_bytes +
      (fold.bias && is_read_once(*fold.bias) ? fold.bias->constant()->byte_size() : 0);
  if (bias.byte_size() > freed) return miss("the bias that takes the shift would grow the file");
  if (node.is("MatMul") && !fold.twins.empty())
    return miss(fmt::format("weight '{}' has another reader, and MatMul has no bias to take the shift",
                            weight->name()));
  fold.shift = std::move(bias);
  return fold;
}

std::optional<std::string> obstacle(const Match& match) {
  std::string reason;
  return plan(match, reason) ? std::nullopt : std::optional(reason);
}

void apply(const Match& match, Patch& patch) {
  std::string reason;
  std::optional<Fold> fold = plan(match, reason);
  Node* node = fold->linear.node;
  Node* add = match.node("add");
  Value* result = match.value("moved") ? match.value("moved")
                  : add                ? add->output()
                                       : node->output();
  std::optional<Tensor> weight;
  if (fold->affine.scales) weight = fold->linear.scaled_outputs(fold->affine.affine.scale);
  if (weight)
    if (std::optional<std::string> obstacle = fold->linear.scale_obstacle(*weight, fold->affine.affine))
      return patch.decline(*obstacle);
  if (fold->shift && !all_finite(*fold->shift)) return patch.decline("the bias is not finite");
  if (weight) patch.set_constant(node->input(1), std::move(*weight));
  for (const Twin& twin : fold->twins) {
    patch.replace(twin.affine->output(), twin.linear->output());
    patch.remove_if_unread(twin.affine);
  }
  if (!fold->shift) return patch.replace(match.root->output(), result);

  const Value* named = fold->bias ? fold->bias : fold->affine.constants.back();
  if (!fold->twins.empty()) {
    const Patch::Ref bias = patch.constant(named->name(), std::move(*fold->shift));
    patch.replace_input(node, 2, bias);
    for (const Twin& twin : fold->twins) patch.replace_input(twin.linear, 2, bias);
    patch.replace(match.root->output(), result);
  } else if (add) {
    put_constant(patch, add, add->input(0) == fold->bias ? 0 : 1, *named, std::move(*fold->shift));
    patch.replace(match.root->output(), result);
  } else if (node->is("MatMul")) {
    OpCall call = make_arithmetic(match.root->graph().opset(), "Add");
    patch.replace(
        match.root->output(),
        patch.node({.op_type = std::move(call.op_type),
                    .name = match.root->name,
                    .inputs = {result, patch.constant(named->name(), std::move(*fold->shift))},
                    .attributes = std::move(call.attributes)}));
  } else {
    put_constant(patch, node, 2, *named, std::move(*fold->shift));
    patch.replace(match.root->output(), result);
  }
}

Rule rule(std::string name, std::string_view op_types, Pattern linear) {
  return {
      .name = std::move(name),
      .pattern =
          Pattern::op(op_types, "affine", {std::move(linear), Pattern::constant()}).commutative(),
      .when = obstacle,
      .replace = apply};
}

Pattern linear(std::string_view op_types) {
  return Pattern::op(op_types, "linear", {Pattern::any(), Pattern::constant()});
}

Pattern biased_product() {
  return Pattern::op("Add", "add", {linear("MatMul"), Pattern::constant("bias")}).commutative();
}

Pattern moved(std::string name, Pattern data) {
  return Pattern::op("Reshape|Transpose|Flatten|Squeeze|Unsqueeze", std::move(name),
                     {std::move(data)});
}

}  // namespace

bool ends_product(const Node& node) {
  const auto is_varying = [](const Value* value) { return value && !value->constant(); };
  const bool is_affine = node.is("Mul") || node.is("Div") || node.is("Add") || node.is("Sub");
  if (!is_affine) return false;
  const Value* first = node.input(0);
  const Value* second = node.input(1);
  if (is_varying(first) && is_varying(second)) return node.is("Mul") || node.is("Div");
  const Value* data = is_varying(first) ? first : second;
  return data && data->producer() && ends_product(*data->producer());
}

void put_constant(Patch& patch, Node* node, std::size_t index, const Value& named, Tensor tensor) {
  Value* old = node->input(index);
  if (old && is_read_once(*old))
    patch.set_constant(old, std::move(tensor));
  else
    patch.replace_input(node, index, patch.constant(named.name(), std::move(tensor)));
}

Rule affine_behind_linear(std::string name, std::string_view op_types) {
  return rule(std::move(name), op_types, linear("Conv|ConvTranspose|Gemm"));
}

Rule affine_behind_product(std::string name, std::string_view op_types) {
  return rule(std::move(name), op_types, linear("MatMul"));
}

Rule affine_behind_bias(std::string name, std::string_view op_types) {
  return rule(std::move(name), op_types, biased_product());
}

std::vector<Rule> scale_behind_moves(const std::string& name) {
  std::vector<Rule> rules;
  for (const Pattern& base : {linear("Conv|ConvTranspose|Gemm|MatMul"), biased_product()}) {
    rules.push_back(rule(name, "Mul|Div", moved("moved", base)));
    rules.push_back(rule(name, "Mul|Div", moved("moved", moved("", base))));
  }
  return rules;
}

}  // namespace onnxpress
