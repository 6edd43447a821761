// Folds BatchNormalization into the convolution or product before it.
#include <algorithm>

#include "graph/ops/batch_norm.h"
#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "graph/ops/gemm.h"
#include "graph/rewrite/pattern.h"
#include "graph/ops/channel_affine.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

// Where the output channels of a linear operator's weight are.
struct Channels {
  std::int64_t axis = 0;
  std::int64_t groups = 1;      // that divide axis 0 when `axis` is another
  std::int64_t count = 0;       // over all groups
};

Channels channels_of(const Node& linear, const Tensor& weight) {
  if (linear.is("ConvTranspose")) {
    const std::int64_t groups = ConvTransposeAttrs::from(linear).group;
    return {1, groups, weight.dim(1) * groups};
  }
  if (linear.is("Gemm") && !GemmAttrs::from(linear).transpose_b) return {1, 1, weight.dim(1)};
  if (linear.is("MatMul")) return {1, 1, weight.dim(1)};
  return {0, 1, weight.dim(0)};
}

bool all_read_once(const Value& value) { return value.uses().size() == 1 && !value.is_output(); }

std::optional<std::string> bias_obstacle(const Node& linear, std::int64_t channels) {
  if (linear.is("MatMul")) return std::nullopt;
  if (linear.is("Gemm") && GemmAttrs::from(linear).beta == 0.0F) return "its bias is multiplied by beta=0";
  const Value* bias = linear.input(2);
  if (!bias) return std::nullopt;
  if (!bias->constant()) return fmt::format("its bias '{}' is not a constant", bias->name());
  const Dims& dims = bias->constant()->dims();
  const std::int64_t size = bias->constant()->size();
  const bool per_channel = size == channels && !dims.empty() && dims.back() == channels;
  if (size != 1 && !per_channel)
    return fmt::format("its bias '{}' has shape {}, expected one value per channel", bias->name(), to_string(dims));
  return std::nullopt;
}

// Why a matched pair is left alone.
std::optional<std::string> obstacle(const Match& match) {
  const Node& linear = *match.node("linear");
  const Node& norm = *match.root;
  const BatchNormAttrs attrs = BatchNormAttrs::from(norm);
  if (attrs.training) return "BatchNormalization is in training mode";
  if (!attrs.per_channel) return "BatchNormalization has statistics per activation (spatial=0)";
  if (!norm.output() || norm.output()->is_unused()) return "nothing reads its result";
  for (std::size_t i = 1; i < norm.output_count(); ++i) {
    if (norm.output(i) && !norm.output(i)->is_unused()) return "BatchNormalization has more than one output in use";
  }
  const Tensor& weight = match.constant("weight");
  if (weight.dtype() != DType::float32 && weight.dtype() != DType::float64)
    return fmt::format("weight '{}' is {}: folding would round it more than float32 does",
                       match.value("weight")->name(), name(weight.dtype()));
  if (!all_read_once(*match.value("weight")))
    return fmt::format("weight '{}' has another reader", match.value("weight")->name());
  const bool product = linear.is("Gemm") || linear.is("MatMul");
  if (product && weight.rank() != 2)
    return fmt::format("weight '{}' has rank {}, expected 2", match.value("weight")->name(), weight.rank());
  if (linear.is("MatMul")) {
    const Type& type = match.type(linear.output());
    if (!type.shape) return "the rank of its result is not known";
    if (type.shape->size() != 2)
      return fmt::format("its result has rank {}: axis 1 is not the channel axis", type.shape->size());
  }
  const std::int64_t channels = channels_of(linear, weight).count;
  for (const char* name : {"gamma", "beta", "mean", "variance"}) {
    if (match.constant(name).size() != channels)
      return fmt::format("{} has {} values, expected {} (the output channels)", name, match.constant(name).size(),
                         channels);
  }
  return bias_obstacle(linear, channels);
}

Tensor folded_bias(const Node& linear, const ChannelAffine& affine, double beta, DType type) {
  const Tensor* bias = linear.is("MatMul") || !linear.input(2) ? nullptr : linear.input(2)->constant();
  const Tensor old = bias ? bias->cast(DType::float64) : Tensor();
  std::vector<double> values;
  for (std::size_t c = 0; c < affine.scale.size(); ++c) {
    const double before = bias ? beta * old.data<double>()[old.size() == 1 ? 0 : c] : 0.0;
    values.push_back((before * affine.scale[c] + affine.shift[c]) / beta);
  }
  return Tensor::of<double>({std::ssize(values)}, values).cast(type);
}

void fold(const Match& match, Patch& patch) {
  Node* linear = match.node("linear");
  Value* weight = match.value("weight");
  const Tensor& old = match.constant("weight");
  const ChannelAffine affine =
      batch_norm_affine(match.constant("gamma"), match.constant("beta"), match.constant("mean"),
                        match.constant("variance"), static_cast<double>(BatchNormAttrs::from(*match.root).epsilon));
  const Channels channels = channels_of(*linear, old);
  // Also where there is no bias yet: the new one is multiplied by beta.
  const double beta = linear->is("Gemm") ? static_cast<double>(GemmAttrs::from(*linear).beta) : 1.0;
  Tensor bias = folded_bias(*linear, affine, beta, old.dtype());
  const Patch::Ref scaled =
      patch.constant(weight->name(), scale_slices(old, channels.axis, affine.scale, channels.groups));

  const Patch::Ref shift = patch.constant(
      linear->input(2) ? linear->input(2)->name() : fmt::format("{}_bias", linear->output()->name()), std::move(bias));
  if (linear->is("MatMul")) {
    const Patch::Ref product =
        patch.node({.op_type = "MatMul", .name = linear->name, .inputs = {linear->input(0), scaled}});
    patch.replace(match.root->output(),
                  patch.node({.op_type = "Add", .name = match.root->name, .inputs = {product, shift}}));
    return;
  }
  patch.replace_input(linear, 1, scaled);
  patch.replace_input(linear, 2, shift);
  patch.replace(match.root->output(), linear->output());
}

Rule rule() {
  Pattern linear = Pattern::op("Conv|ConvTranspose|Gemm|MatMul", "linear",
                               {Pattern::any("input"), Pattern::constant("weight")});
  return {.name = "fuse_conv_bn",
          .pattern = Pattern::op("BatchNormalization", "norm",
                                 {std::move(linear), Pattern::constant("gamma"), Pattern::constant("beta"),
                                  Pattern::constant("mean"), Pattern::constant("variance")}),
          .when = obstacle,
          .replace = fold};
}

class FuseConvBn : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_conv_bn",
      .summary = "folds BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before it",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 10};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override { return {rule()}; }
};

}  // namespace

PASS(fuse_conv_bn) { registry.add(std::make_unique<FuseConvBn>()); }

}  // namespace onnxpress
