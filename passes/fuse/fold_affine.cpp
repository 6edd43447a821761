// Folds scales and shifts by channel into the linear operators around them.
//
// Behind one, y = (x W + b) * s + t is x (W s) + (b s + t). In front of one, (x * s + t) W + b is
// x (s W) + (t W + b), which a convolution's padding only allows where t is zero: the border is
// padded with zeros behind the shift.
#include <algorithm>

#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/affine_rules.h"

namespace onnxpress {
namespace {

bool is_zero(double value) { return value == 0; }

// What folding a scale and shift into the operator behind it changes.
struct Fold {
  LinearOperator linear;
  AffineNode affine;
  Value* bias = nullptr;               // the constant there is; nullptr: none
  std::optional<ChannelAffine> shift;  // of the bias
};

std::optional<Fold> plan(const Match& match, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  Node& node = *match.node("linear");
  const Node& affine = *match.node("affine");
  if (std::optional<std::string> obstacle = LinearOperator::obstacle(node)) return miss(*obstacle);
  if (ends_product(affine)) return miss("it may end an activation or a normalization written out");
  Fold fold{.linear = LinearOperator::of(node)};
  const Value* weight = node.input(1);
  if (!is_read_once(*weight))
    return miss(fmt::format("weight '{}' has another reader", weight->name()));

  const std::size_t data = affine.input(0) == match.value("x") ? 0 : 1;
  const Type& type = match.type(match.value("x"));
  if (!type.shape)
    return miss(fmt::format("the shape of '{}' is not known", match.value("x")->name()));
  const ChannelView view = fold.linear.input_view(type);
  if (type.shape->size() != view.rank)
    return miss(fmt::format("'{}' has rank {}, expected {}", match.value("x")->name(),
                            type.shape->size(), *view.rank));
  const Dim& channels = (*type.shape)[*view.rank - 1 - view.behind];
  if (!channels.is_known() || channels.value() != view.count)
    return miss(
        fmt::format("'{}' is not known to have {} channels", match.value("x")->name(), view.count));
  std::optional<AffineNode> read = read_affine(affine, data, view, reason);
  if (!read) return std::nullopt;
  fold.affine = std::move(*read);

  const std::vector<double>& shift = fold.affine.affine.shift;
  if (std::ranges::all_of(shift, is_zero)) return fold;
  if (node.is("MatMul")) return miss("MatMul has no bias to take the shift");
  if (node.is("ConvTranspose")) return miss("the border of ConvTranspose sees less of the shift");
  if (node.is("Conv") && has_padding(node, fold.linear.weight->dims()))
    return miss("the convolution pads behind the shift");
  fold.bias = node.input(2);
  if (fold.bias && !fold.bias->constant())
    return miss(fmt::format("its bias '{}' is not a constant", fold.bias->name()));
  const std::int64_t outputs = fold.linear.out.count;
  if (fold.bias && !is_channel_bias(*fold.bias->constant(), outputs, node.is("Gemm")))
    return miss(fmt::format("its bias '{}' has shape {}, expected one value per channel",
                            fold.bias->name(), to_string(fold.bias->constant()->dims())));
  if (fold.linear.beta == 0) return miss("its bias is multiplied by beta=0");
  const std::size_t freed =
      constant_bytes_only_for(affine) + least_node_bytes +
      (fold.bias && is_read_once(*fold.bias) ? fold.bias->constant()->byte_size() : 0);
  const std::size_t element =
      fold.linear.weight->byte_size() / static_cast<std::size_t>(fold.linear.weight->size());
  if (static_cast<std::size_t>(outputs) * element > freed)
    return miss("the bias that takes the shift would grow the file");
  fold.shift = ChannelAffine{.scale = std::vector<double>(static_cast<std::size_t>(outputs), 1),
                             .shift = fold.linear.response(shift)};
  for (double& value : fold.shift->shift) value *= fold.linear.alpha / fold.linear.beta;
  return fold;
}

std::optional<std::string> obstacle(const Match& match) {
  std::string reason;
  return plan(match, reason) ? std::nullopt : std::optional(reason);
}

void apply(const Match& match, Patch& patch) {
  std::string reason;
  const std::optional<Fold> fold = plan(match, reason);
  Node* node = fold->linear.node;
  Tensor weight = fold->linear.scaled_inputs(fold->affine.affine.scale);
  if (fold->affine.scales)
    if (std::optional<std::string> obstacle = fold->linear.scale_obstacle(weight, fold->affine.affine))
      return patch.decline(*obstacle);
  if (fold->shift) {
    const Tensor old =
        fold->bias ? *fold->bias->constant() : Tensor(weight.dtype(), {fold->linear.out.count});
    Tensor bias = affine_bias(old, *fold->shift, weight.dtype());
    if (!all_finite(bias)) return patch.decline("the bias is not finite");
    const Value* named = fold->bias ? fold->bias : fold->affine.constants.back();
    put_constant(patch, node, 2, *named, std::move(bias));
  }
  patch.replace_input(node, 0, match.value("x"));
  patch.set_constant(node->input(1), std::move(weight));
}

Rule affine_before_linear() {
  Pattern affine = Pattern::op("BatchNormalization|Mul|Div|Add|Sub", "affine",
                               {Pattern::any("x"), Pattern::constant("operand")})
                       .commutative();
  return {.name = "fold_into_next",
          .pattern = Pattern::op("Conv|ConvTranspose|Gemm|MatMul", "linear",
                                 {std::move(affine), Pattern::constant("weight")}),
          .when = obstacle,
          .replace = apply};
}

class FoldAffine : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fold_affine",
      .summary =
          "folds constant scales and shifts into the Conv, ConvTranspose, Gemm or MatMul "
          "before or after them",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 60};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    std::vector<Rule> rules{affine_behind_linear("fold_into_previous", "Mul|Div|Add|Sub"),
                            affine_behind_product("fold_into_previous", "Mul|Div"),
                            affine_behind_bias("fold_into_previous", "Mul|Div"),
                            affine_before_linear()};
    for (Rule& rule : scale_behind_moves("fold_scale_through_moves"))
      rules.push_back(std::move(rule));
    return rules;
  }
};

}  // namespace

PASS(fold_affine) { registry.add(std::make_unique<FoldAffine>()); }

}  // namespace onnxpress
