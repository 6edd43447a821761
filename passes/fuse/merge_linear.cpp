// Merges a linear operator into the one behind it where nothing is between them and the product of
// the weights is smaller than the two: (x A + a) B + b is x (A B) + (a B + b). A bottleneck (two
// thin weights for a wide one) stays.
#include <algorithm>

#include "graph/ops/arithmetic.h"
#include "graph/ops/conv.h"
#include "graph/ops/gemm.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/transpose.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/affine_rules.h"

namespace onnxpress {
namespace {

// [rows, depth] x [depth, columns], in double.
Tensor product(const Tensor& a, const Tensor& b) {
  const Tensor left = a.cast(DType::float64), right = b.cast(DType::float64);
  Tensor result(DType::float64, {a.dim(0), b.dim(1)});
  add_product<double>(a.dim(0), b.dim(1), a.dim(1), {left.data<double>().data(), a.dim(1)},
                      {right.data<double>().data(), b.dim(1)},
                      {result.mutable_data<double>().data(), b.dim(1)});
  return result;
}

std::int64_t cells(const Tensor& weight) { return weight.size() / (weight.dim(0) * weight.dim(1)); }

// A pointwise convolution behind another one: the kernel [M2,C,k...] of both in the other's place.
Tensor pointwise_after(const Tensor& first, const Tensor& second) {
  const Dims dims = first.dims();
  Dims merged = dims;
  merged[0] = second.dim(0);
  return product(second.reshaped({second.dim(0), second.dim(1)}),
                 first.reshaped({dims[0], first.size() / dims[0]}))
      .reshaped(merged);
}

// The same in front of another one: each output channel's kernel [M1,k...] becomes [C,k...].
Tensor pointwise_before(const Tensor& first, const Tensor& second) {
  const std::int64_t outputs = second.dim(0), between = second.dim(1), size = cells(second);
  const Tensor matrix = transposed(first.reshaped({first.dim(0), first.dim(1)}), {1, 0});
  const Tensor kernels = transposed(second.reshaped({outputs, between, size}), {1, 0, 2});
  const Tensor found = product(matrix, kernels.reshaped({between, outputs * size}));
  Dims merged = second.dims();
  merged[1] = first.dim(1);
  return transposed(found.reshaped({first.dim(1), outputs, size}), {1, 0, 2}).reshaped(merged);
}

// The matrix that rows are multiplied with, as B of the operator is stored or the other way round.
Tensor dense_weight(const LinearOperator& first, const LinearOperator& second) {
  const auto matrix = [](const LinearOperator& linear) {
    return linear.out.axis == 1 ? *linear.weight : transposed(*linear.weight, {1, 0});
  };
  Tensor merged = product(matrix(first), matrix(second));
  for (double& value : merged.mutable_data<double>()) value *= first.alpha;
  return second.out.axis == 1 ? merged : transposed(merged, {1, 0});
}

// What merging a match makes.
struct Merge {
  Node* kept = nullptr;  // the operator that gets weight and bias
  Tensor weight;
  Tensor bias;               // undefined: none
  bool adds_behind = false;  // a MatMul's bias is an Add
};

// Input 2, or the operand of the Add behind a MatMul, one value per channel; undefined: none.
std::optional<Tensor> bias_of(const Value* bias, std::int64_t channels) {
  if (!bias) return Tensor();
  const Tensor* constant = bias->constant();
  if (!constant || !is_channel_bias(*constant, channels, true)) return std::nullopt;
  if (constant->size() != 1 && constant->size() != channels) return std::nullopt;
  return *constant;
}

std::vector<double> channel_values(const Tensor& bias, double factor, std::int64_t channels) {
  const Tensor wide = bias.cast(DType::float64);
  std::vector<double> values;
  for (std::int64_t c = 0; c < channels; ++c)
    values.push_back(factor *
                     wide.data<double>()[bias.size() == 1 ? 0 : static_cast<std::size_t>(c)]);
  return values;
}

std::optional<Merge> plan(const Match& match, bool compute, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  Node& one = *match.node("first");
  Node& two = *match.root;
  for (const Node* node : {&one, &two}) {
    if (std::optional<std::string> obstacle = LinearOperator::obstacle(*node))
      return miss(*obstacle);
    if (!is_read_once(*node->input(1)))
      return miss(fmt::format("weight '{}' has another reader", node->input(1)->name()));
  }
  const LinearOperator first = LinearOperator::of(one), second = LinearOperator::of(two);
  if (first.weight->dtype() != second.weight->dtype()) return miss("the weights' types differ");
  if (first.data_transposed || second.data_transposed) return miss("a Gemm transposes its input");
  if (first.out.count != second.in.count) return miss("the channels between them do not fit");

  Value* added = match.value("bias");
  Value* bias_value = one.is("MatMul") ? added : one.input(2);
  const std::optional<Tensor> bias = bias_of(bias_value, first.out.count);
  if (!bias) return miss("the bias of the first is not one constant per channel");
  if (added) {
    const Type& type = match.type(one.output());
    if (bias->rank() > (type.shape ? type.shape->size() : 1) ||
        !is_aligned_last(*match.node("add"), match.node("add")->input(0) == added ? 0 : 1,
                         std::nullopt, bias->rank()))
      return miss("the bias of the first adds axes");
  }
  const Value* second_bias = two.input(2);
  if (second_bias && !second_bias->constant())
    return miss(fmt::format("its bias '{}' is not a constant", second_bias->name()));
  if (second.beta == 0) return miss("its bias is multiplied by beta=0");

  Merge merge{.kept = &two};
  std::int64_t merged_size = first.in.count * second.out.count;
  if (two.is("Conv")) {
    const bool after = is_pointwise(two, second.weight->dims());
    if (!after && !is_pointwise(one, first.weight->dims()))
      return miss("neither convolution is of kernel 1 without strides");
    if (first.in.groups != 1 || second.in.groups != 1) return miss("a convolution has groups");
    if (!after && bias->defined() && has_padding(two, second.weight->dims()))
      return miss("the second convolution pads behind the bias of the first");
    merged_size *= cells(after ? *first.weight : *second.weight);
    if (after) merge.kept = &one;
  }
  if (merged_size >= first.weight->size() + second.weight->size())
    return miss(fmt::format("the merged weight would have {} values, the two have {}", merged_size,
                            first.weight->size() + second.weight->size()));
  if (bias->defined()) {
    const std::int64_t outputs = second.out.count;
    const Tensor old = second_bias ? *second_bias->constant() : Tensor();
    if (old.defined() && !is_channel_bias(old, outputs, two.is("Gemm")))
      return miss(
          fmt::format("its bias '{}' has shape {}", second_bias->name(), to_string(old.dims())));
    ChannelAffine shift{std::vector<double>(static_cast<std::size_t>(outputs), 1),
                        second.response(channel_values(*bias, first.beta, first.out.count))};
    for (double& value : shift.shift) value *= second.alpha / second.beta;
    const Tensor zero(second.weight->dtype(), {outputs});
    merge.bias = affine_bias(old.defined() ? old : zero, shift, second.weight->dtype());
    merge.adds_behind = two.is("MatMul");
    const std::int64_t before = second_bias ? old.size() : 0;
    if (merged_size + merge.bias.size() >= first.weight->size() + second.weight->size() + before)
      return miss("the merged bias would grow the file");
  } else if (second_bias && merge.kept == &one) {
    merge.bias = *second_bias->constant();
  }
  if (!compute) return merge;
  Tensor weight = !two.is("Conv")      ? dense_weight(first, second)
                  : merge.kept == &one ? pointwise_after(*first.weight, *second.weight)
                                       : pointwise_before(*first.weight, *second.weight);
  merge.weight = weight.cast(second.weight->dtype());
  return merge;
}

std::optional<std::string> obstacle(const Match& match) {
  std::string reason;
  return plan(match, false, reason) ? std::nullopt : std::optional(reason);
}

void apply(const Match& match, Patch& patch) {
  std::string reason;
  Merge merge = *plan(match, true, reason);
  const bool is_zero = all_zero(*match.node("first")->input(1)->constant()) ||
                       all_zero(*match.root->input(1)->constant());
  if (std::optional<std::string> obstacle = range_obstacle(merge.weight, is_zero))
    return patch.decline(*obstacle);
  if (merge.bias.defined() && !all_finite(merge.bias))
    return patch.decline("the bias is not finite");
  Node* first = match.node("first");
  Node* second = match.root;
  const Value* named = match.value("bias") ? match.value("bias")
                       : second->input(2)  ? second->input(2)
                                           : first->input(2);
  if (merge.kept == first) {  // in a new node: its result has other channels
    const ConvAttrs attrs = ConvAttrs::of(*first, merge.weight.dims());
    std::vector<Patch::Ref> inputs{
        first->input(0), patch.constant(first->input(1)->name(), std::move(merge.weight))};
    if (merge.bias.defined())
      inputs.push_back(patch.constant(named->name(), std::move(merge.bias)));
    return patch.replace(second->output(), patch.node({.op_type = "Conv",
                                                       .name = first->name,
                                                       .inputs = std::move(inputs),
                                                       .attributes = attrs.to_attributes()}));
  }
  patch.set_constant(second->input(1), std::move(merge.weight));
  patch.replace_input(second, 0, first->input(0));
  if (merge.adds_behind) {
    OpCall call = make_arithmetic(second->graph().opset(), "Add");
    patch.replace(second->output(),
                  patch.node({.op_type = std::move(call.op_type),
                              .inputs = {second->output(),
                                         patch.constant(named->name(), std::move(merge.bias))},
                              .attributes = std::move(call.attributes)}));
  } else if (merge.bias.defined()) {
    put_constant(patch, second, 2, *named, std::move(merge.bias));
  }
}

Pattern linear(std::string_view op_types, std::string name, Pattern data) {
  return Pattern::op(op_types, std::move(name), {std::move(data), Pattern::constant()});
}

Rule rule(std::string_view second, Pattern first) {
  return {.name = "merge_linear",
          .pattern = linear(second, "second", std::move(first)),
          .when = obstacle,
          .replace = apply};
}

class MergeLinear : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "merge_linear",
      .summary =
          "merges products and convolutions with nothing between them, where that shrinks "
          "the weights",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 66};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    Pattern biased =
        Pattern::op("Add", "add",
                    {linear("MatMul", "first", Pattern::any()), Pattern::constant("bias")})
            .commutative();
    return {rule("MatMul|Gemm", linear("MatMul|Gemm", "first", Pattern::any())),
            rule("MatMul|Gemm", std::move(biased)),
            rule("Conv", linear("Conv", "first", Pattern::any()))};
  }
};

}  // namespace

PASS(merge_linear) { registry.add(std::make_unique<MergeLinear>()); }

}  // namespace onnxpress
