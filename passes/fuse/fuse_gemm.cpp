// Writes products of matrices as Gemm: with the sum behind them, with transposes in front of them.
#include <algorithm>
#include <array>

#include "graph/ops/gemm.h"
#include "graph/ops/reshape.h"
#include "graph/ops/transpose.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

using Obstacle = std::optional<std::string>;

Obstacle no_matrix(const Match& match, const Value* value) {
  const Type& type = match.type(value);
  if (!is_gemm_type(type.elem))
    return fmt::format(
        "'{}' is {}", value->name(),
        type.elem == DType::undefined ? "of a type that is not known" : name(type.elem));
  if (!type.shape) return fmt::format("the rank of '{}' is not known", value->name());
  if (type.shape->size() != 2)
    return fmt::format("'{}' has rank {}, expected 2", value->name(), type.shape->size());
  return std::nullopt;
}

// Why `bias`, added to the matrix of `shape` by `add`, cannot be the C of a Gemm.
Obstacle no_bias(const Match& match, const Node& add, const Value* bias, const Shape& shape) {
  const Type& type = match.type(bias);
  if (!type.shape) return fmt::format("the rank of '{}' is not known", bias->name());
  const std::size_t rank = type.shape->size();
  if (rank > 2) return fmt::format("'{}' has rank {}, expected at most 2", bias->name(), rank);
  if (!is_aligned_last(add, add.input(0) == bias ? 0 : 1, 2, rank))
    return fmt::format("{} adds along other axes than the last", add.describe());
  for (std::size_t i = 0; i < rank; ++i) {
    const Dim& dim = (*type.shape)[i];
    const bool is_one = dim.is_known() && dim.value() == 1;
    if (!is_one && !same_dim(dim, shape[2 - rank + i]))
      return fmt::format("'{}' of shape {} is not known to broadcast to {}", bias->name(),
                         to_string(*type.shape), to_string(shape));
  }
  return std::nullopt;
}

// Whether `bias` is, but for elementwise steps of one operand, another product of `a`: subtracted,
// it may cancel the product exactly, which a Gemm that starts from it does not.
bool may_cancel(const Value* bias, const Value* a) {
  for (const Node* node = bias->producer(); node != nullptr;) {
    if (node->is("MatMul") || node->is("Gemm")) return node->input(0) == a;
    const Node* next = nullptr;
    for (const Value* input : node->inputs()) {
      if (!input || !input->producer() || input->producer()->input_count() == 0) continue;
      if (next) return false;
      next = input->producer();
    }
    node = next;
  }
  return false;
}

bool is_quantized(const Value* value) {
  return value->producer() && value->producer()->is("DequantizeLinear");
}

Patch::Ref make_gemm(Patch& patch, const Match& match, const Node& named, const GemmAttrs& attrs,
                     std::vector<Patch::Ref> inputs) {
  return patch.node({.op_type = "Gemm",
                     .name = named.name,
                     .inputs = std::move(inputs),
                     .attributes = attrs.to_attributes(match.root->graph().opset())});
}

// MatMul + Add.
Rule matmul_add() {
  return {.name = "matmul_add_to_gemm",
          .pattern =
              Pattern::op("Add", "add",
                          {Pattern::op("MatMul", "product", {Pattern::any("a"), Pattern::any("b")}),
                           Pattern::any("bias")})
                  .commutative(),
          .when = [](const Match& match) -> Obstacle {
            for (const char* name : {"a", "b"}) {
              if (Obstacle obstacle = no_matrix(match, match.value(name))) return obstacle;
              if (is_quantized(match.value(name)))
                return fmt::format("'{}' is quantized: runtimes want it before a MatMul",
                                   match.value(name)->name());
            }
            if (may_cancel(match.value("bias"), match.value("a")))
              return fmt::format("'{}' is a product of '{}' too, which may cancel it exactly",
                                 match.value("bias")->name(), match.value("a")->name());
            const Shape shape{(*match.type(match.value("a")).shape)[0],
                              (*match.type(match.value("b")).shape)[1]};
            return no_bias(match, *match.root, match.value("bias"), shape);
          },
          .replace =
              [](const Match& match, Patch& patch) {
                patch.replace(match.root->output(),
                              make_gemm(patch, match, *match.node("product"), {},
                                        {match.value("a"), match.value("b"), match.value("bias")}));
              }};
}

// Gemm without C + Add.
Rule gemm_add() {
  return {.name = "add_to_gemm",
          .pattern = Pattern::op("Add", "add", {Pattern::op("Gemm", "gemm"), Pattern::any("bias")})
                         .commutative(),
          .when = [](const Match& match) -> Obstacle {
            const Node& gemm = *match.node("gemm");
            if (gemm.input(2)) return fmt::format("{} has a bias", gemm.describe());
            if (may_cancel(match.value("bias"), gemm.input(0)))
              return fmt::format(
                  "'{}' is a product of the same matrix, which may cancel it exactly",
                  match.value("bias")->name());
            const Type& type = match.type(gemm.output());
            if (!is_gemm_type(type.elem) || !type.shape) return "its type is not known";
            return no_bias(match, *match.root, match.value("bias"), *type.shape);
          },
          .replace =
              [](const Match& match, Patch& patch) {
                const Node& gemm = *match.node("gemm");
                GemmAttrs attrs = GemmAttrs::from(gemm);
                attrs.beta = 1;
                patch.replace(match.root->output(),
                              make_gemm(patch, match, gemm, attrs,
                                        {gemm.input(0), gemm.input(1), match.value("bias")}));
              }};
}

// Transpose in front of operand `operand` of Gemm or MatMul.
Rule transpose_into(std::string_view op_type, std::size_t operand) {
  std::vector<Pattern> operands(2, Pattern::any());
  operands[operand] = Pattern::op("Transpose", "transpose", {Pattern::any("x")});
  return {.name = "transpose_into_gemm",
          .pattern = Pattern::op(op_type, "product", std::move(operands)),
          .when = [](const Match& match) -> Obstacle {
            for (std::size_t i = 0; i < 2; ++i)
              if (Obstacle obstacle = no_matrix(match, match.root->input(i))) return obstacle;
            if (match.root->is("MatMul") && !gemm_bias_is_optional(match.root->graph().opset()))
              return "the model's opset has no Gemm without a bias";
            if (transpose_permutation(*match.node("transpose"), 2)[0] != 1)
              return "it does not swap the axes";
            return std::nullopt;
          },
          .replace =
              [operand](const Match& match, Patch& patch) {
                const bool is_gemm = match.root->is("Gemm");
                GemmAttrs attrs = is_gemm ? GemmAttrs::from(*match.root) : GemmAttrs();
                bool& transposed = operand == 0 ? attrs.transpose_a : attrs.transpose_b;
                transposed = !transposed;
                std::vector<Patch::Ref> inputs(match.root->inputs().begin(),
                                               match.root->inputs().end());
                inputs[operand] = match.value("x");
                patch.replace(match.root->output(),
                              make_gemm(patch, match, *match.root, attrs, std::move(inputs)));
              }};
}

Tensor scaled(const Tensor& tensor, float factor) {
  return scale_slices(tensor.reshaped({1, tensor.size()}), 0, {static_cast<double>(factor)})
      .reshaped(tensor.dims());
}

bool takes_factor(const Value* constant) {
  return constant && constant->constant() && is_read_once(*constant) &&
         (constant->constant()->dtype() == DType::float32 ||
          constant->constant()->dtype() == DType::float64);
}

// alpha and beta into constant operands; nothing to do where they are 1.
Rule factors() {
  return {.name = "fold_gemm_factors",
          .pattern = Pattern::op("Gemm", "gemm"),
          .when = [](const Match& match) -> Obstacle {
            const GemmAttrs attrs = GemmAttrs::from(*match.root);
            const Value* b = match.root->input(1);
            const Value* c = match.root->input(2);
            if (attrs.alpha != 1 && !takes_factor(b))
              return fmt::format("alpha: '{}' is no float constant that only it reads", b->name());
            if (attrs.beta != 1 && c && !takes_factor(c))
              return fmt::format("beta: '{}' is no float constant that only it reads", c->name());
            return std::nullopt;
          },
          .replace =
              [](const Match& match, Patch& patch) {
                const GemmAttrs attrs = GemmAttrs::from(*match.root);
                if (attrs.alpha == 1 && attrs.beta == 1) return;
                std::vector<Patch::Ref> inputs(match.root->inputs().begin(),
                                               match.root->inputs().end());
                const std::array factors{1.0F, attrs.alpha, attrs.beta};
                for (std::size_t i = 1; i < inputs.size(); ++i) {
                  if (factors[i] == 1 || !match.root->input(i)) continue;
                  const Tensor& constant = *match.root->input(i)->constant();
                  Tensor product = scaled(constant, factors[i]);
                  const bool is_zero = factors[i] == 0 || all_zero(constant);
                  if (Obstacle obstacle = range_obstacle(product, is_zero))
                    return patch.decline(*obstacle);
                  patch.set_constant(match.root->input(i), std::move(product));
                }
                patch.replace(match.root->output(), make_gemm(patch, match, *match.root,
                                                              {.transpose_a = attrs.transpose_a,
                                                               .transpose_b = attrs.transpose_b},
                                                              std::move(inputs)));
              }};
}

class FuseGemm : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_gemm",
      .summary = "writes MatMul of matrices as Gemm where a sum or a transpose goes into it",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 64};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {matmul_add(),
            gemm_add(),
            transpose_into("Gemm", 0),
            transpose_into("Gemm", 1),
            transpose_into("MatMul", 0),
            transpose_into("MatMul", 1),
            factors()};
  }
};

}  // namespace

PASS(fuse_gemm) { registry.add(std::make_unique<FuseGemm>()); }

}  // namespace onnxpress
