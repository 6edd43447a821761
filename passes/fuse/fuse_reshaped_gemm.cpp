// Writes products as Gemm where reshapes around them allow it: MatMul + Add of rows of any rank
// between two reshapes, and a convolution of single cells whose result is flattened.
#include <algorithm>

#include "graph/ops/gemm.h"
#include "graph/ops/reshape.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

using Obstacle = std::optional<std::string>;

// The target of `reshape` for an input whose axes are other ones than now: without copied dims.
std::optional<Dims> absolute_target(const Match& match, const Node& reshape) {
  const std::optional<ReshapeTarget> target = ReshapeTarget::from(reshape);
  if (!target || target->allow_zero) return std::nullopt;
  Dims dims = target->dims;
  const Type& type = match.type(reshape.output());
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] != 0) continue;
    const Dim known = type.shape && i < type.shape->size() ? (*type.shape)[i] : Dim();
    dims[i] = known.is_known() ? known.value() : -1;
    if (dims[i] == 0) return std::nullopt;
  }
  if (std::ranges::count(dims, -1) > 1) return std::nullopt;
  return dims;
}

Patch::Ref reshape(Patch& patch, const Match& match, const std::string& name, Patch::Ref data,
                   Dims target) {
  OpCall call = make_reshape(match.root->graph().opset(), std::move(target));
  std::vector<Patch::Ref> inputs{data};
  for (Tensor& constant : call.constants)
    inputs.push_back(patch.constant("shape", std::move(constant)));
  return patch.node({.op_type = std::move(call.op_type),
                     .name = name,
                     .inputs = std::move(inputs),
                     .attributes = std::move(call.attributes)});
}

// Reshape + MatMul + Add + Reshape: the product is one of rows, whatever axes these are in.
Rule between_reshapes() {
  Pattern product = Pattern::op(
      "MatMul", "product",
      {Pattern::op("Reshape", "before", {Pattern::any("x")}), Pattern::constant("weight")});
  return {
      .name = "matmul_between_reshapes",
      .pattern =
          Pattern::op("Reshape", "after",
                      {Pattern::op("Add", "add", {std::move(product), Pattern::constant("bias")})
                           .commutative()}),
      .when = [](const Match& match) -> Obstacle {
        const Tensor& weight = match.constant("weight");
        const Tensor& bias = match.constant("bias");
        if (!is_gemm_type(weight.dtype()))
          return fmt::format("the weight is {}", name(weight.dtype()));
        if (weight.rank() != 2 || weight.size() == 0)
          return fmt::format("the weight has shape {}, expected a matrix",
                             to_string(weight.dims()));
        if (bias.rank() > 1 || (bias.size() != 1 && bias.size() != weight.dim(1)))
          return fmt::format("the bias has shape {}, expected one value per column",
                             to_string(bias.dims()));
        const Node& add = *match.node("add");
        if (!is_aligned_last(add, add.input(0) == match.value("bias") ? 0 : 1, std::nullopt,
                             bias.rank()))
          return "the bias is added along another axis than the last";
        if (!match.type(match.node("before")->output()).shape)
          return "the rank of its input is not known";
        if (!absolute_target(match, *match.root))
          return "the shape behind it is computed, or has more than one dim that is not known";
        return std::nullopt;
      },
      .replace =
          [](const Match& match, Patch& patch) {
            const std::int64_t depth = match.constant("weight").dim(0);
            const Patch::Ref rows =
                reshape(patch, match, match.node("before")->name, match.value("x"), {-1, depth});
            const Patch::Ref gemm =
                patch.node({.op_type = "Gemm",
                            .name = match.node("product")->name,
                            .inputs = {rows, match.value("weight"), match.value("bias")},
                            .attributes = GemmAttrs().to_attributes(match.root->graph().opset())});
            patch.replace(match.root->output(), reshape(patch, match, match.root->name, gemm,
                                                        *absolute_target(match, *match.root)));
          }};
}

Obstacle no_cells(const Match& match) {
  const Node& conv = *match.node("conv");
  const Tensor& weight = match.constant("weight");
  if (!is_gemm_type(weight.dtype())) return fmt::format("the weight is {}", name(weight.dtype()));
  if (weight.rank() < 3 || weight.size() != weight.dim(0) * weight.dim(1) ||
      !is_pointwise(conv, weight.dims()))
    return "its kernel is not of size 1, or it has strides, padding or groups";
  if (!is_read_once(*match.value("weight")))
    return fmt::format("weight '{}' has another reader", match.value("weight")->name());
  const Type& type = match.type(match.value("x"));
  if (!type.shape) return fmt::format("the shape of '{}' is not known", match.value("x")->name());
  for (std::size_t i = 2; i < type.shape->size(); ++i)
    if (!(*type.shape)[i].is_known() || (*type.shape)[i].value() != 1)
      return fmt::format("'{}' has shape {}, expected single cells", match.value("x")->name(),
                         to_string(*type.shape));
  const Type& result = match.type(match.root->output());
  if (!result.shape || result.shape->size() != 2 || !(*result.shape)[1].is_known() ||
      (*result.shape)[1].value() != weight.dim(0))
    return "its result is not known to be reshaped to [batch, channels]";
  if (!conv.input(2) && !gemm_bias_is_optional(match.root->graph().opset()))
    return "the model's opset has no Gemm without a bias";
  return std::nullopt;
}

// Conv of single cells + Flatten: the product of rows, flattened before.
Rule single_cells() {
  return {.name = "conv_of_cells_to_gemm",
          .pattern = Pattern::op(
              "Flatten|Reshape|Squeeze", "flat",
              {Pattern::op("Conv", "conv", {Pattern::any("x"), Pattern::constant("weight")})}),
          .when = no_cells,
          .replace = [](const Match& match, Patch& patch) {
            const Node& conv = *match.node("conv");
            const Tensor& weight = match.constant("weight");
            std::vector<Patch::Ref> inputs{
                patch.node(
                    {.op_type = "Flatten", .name = match.root->name, .inputs = {match.value("x")}}),
                patch.constant(match.value("weight")->name(),
                               weight.reshaped({weight.dim(0), weight.dim(1)}))};
            if (conv.input(2)) inputs.emplace_back(conv.input(2));
            patch.replace(match.root->output(),
                          patch.node({.op_type = "Gemm",
                                      .name = conv.name,
                                      .inputs = std::move(inputs),
                                      .attributes = GemmAttrs{.transpose_b = true}.to_attributes(
                                          match.root->graph().opset())}));
          }};
}

class FuseReshapedGemm : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_reshaped_gemm",
      .summary = "writes MatMul + Add between reshapes, and convolutions of single cells, as Gemm",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 65};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {between_reshapes(), single_cells()};
  }
};

}  // namespace

PASS(fuse_reshaped_gemm) { registry.add(std::make_unique<FuseReshapedGemm>()); }

}  // namespace onnxpress
