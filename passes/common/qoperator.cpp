#include "passes/common/qoperator.h"

#include <algorithm>
#include <array>

#include "graph/ops/activations.h"
#include "graph/ops/gemm.h"
#include "graph/ops/qlinear.h"
#include "passes/common/qoperator_site.h"
#include "passes/common/rewriting.h"

namespace onnxpress {
namespace {

constexpr const char* runtime = "com.microsoft";
constexpr const char* requantization = "qoperator_requantize";
constexpr const char* movement_rule = "qoperator_movement";

using Planned = std::optional<PlannedOperator>;

// ONNX Runtime multiplies uint8 with both types, int8 with int8.
bool is_product_pair(const CodedOperand& a, const CodedOperand& b, std::string& reason) {
  if (a.type == DType::uint8 || b.type == DType::int8) return true;
  reason = fmt::format("'{}' is int8 and '{}' uint8", a.codes->name(), b.codes->name());
  return false;
}

// The result has the type of operand `x`.
bool is_result_type(const QOperatorSite& site, const CodedOperand& x, std::string& reason) {
  if (!site.y || site.y->type == x.type) return true;
  reason = fmt::format("it is quantized from {} to {}", name(x.type), name(site.y->type));
  return false;
}

// One scale, or one for each of `count` channels along `axis`, with zero points that are all 0 or one.
bool has_channel_scales(const CodedOperand& weight, std::int64_t axis, std::size_t rank, std::int64_t count,
                        std::string& reason) {
  if (weight.is_scalar()) return true;
  const std::int64_t given = weight.axis < 0 ? weight.axis + static_cast<std::int64_t>(rank) : weight.axis;
  if (weight.scales->rank() == 1 && weight.scales->size() == count && given == axis && weight.has_zero_zeros())
    return true;
  reason = fmt::format("the scales of '{}' are not one for each output channel, or its zero points differ",
                       weight.codes->name());
  return false;
}

std::optional<CodedOperand> scalar_operand(const QOperatorSite& site, std::size_t index, std::string& reason) {
  auto x = dequantized(site.match, site.op.input(index), reason);
  if (x && !x->is_scalar()) {
    reason = fmt::format("'{}' has scales by channel", site.op.input(index)->name());
    x.reset();
  }
  return x;
}

Planned convolution(const QOperatorSite& site, std::string& reason) {
  const auto x = scalar_operand(site, 0, reason);
  const auto w = x ? coded_weight(site.match, site.op.input(1), reason) : std::nullopt;
  if (!w) return std::nullopt;
  const Dims& dims = site.match.types().known_value(w->codes)->dims();
  if (!is_product_pair(*x, *w, reason) || !is_result_type(site, *x, reason) ||
      !has_channel_scales(*w, 0, dims.size(), dims.at(0), reason))
    return std::nullopt;
  auto bias = integer_bias(site.match, site.op.input(2), dims[0], x->scale_number(), *w->scales, reason);
  if (!bias) return std::nullopt;
  PlannedOperator planned{.op_type = "QLinearConv", .domain = {}, .inputs = {}, .attributes = copy_attributes(site.op)};
  planned.add(*x);
  planned.add(*w);
  planned.add_scale(*site.y);
  if (site.op.input(2) != nullptr) planned.inputs.push_back(std::move(*bias));
  return planned;
}

Planned gemm(const QOperatorSite& site, std::string& reason) {
  const GemmAttrs attrs = GemmAttrs::from(site.op);
  const auto a = scalar_operand(site, 0, reason);
  const auto b = a ? coded_weight(site.match, site.op.input(1), reason) : std::nullopt;
  if (!b) return std::nullopt;
  const Dims& dims = site.match.types().known_value(b->codes)->dims();
  const std::int64_t axis = attrs.transpose_b ? 0 : 1;
  if (dims.size() != 2 || !is_product_pair(*a, *b, reason) || !is_result_type(site, *a, reason) ||
      !has_channel_scales(*b, axis, 2, dims[static_cast<std::size_t>(axis)], reason))
    return std::nullopt;
  if (site.op.input(2) != nullptr && attrs.beta != 1) {
    reason = fmt::format("beta is {}, expected 1", attrs.beta);
    return std::nullopt;
  }
  auto bias = integer_bias(site.match, site.op.input(2), dims[static_cast<std::size_t>(axis)],
                           attrs.alpha * a->scale_number(), *b->scales, reason);
  if (!bias) return std::nullopt;
  PlannedOperator planned{.op_type = "QGemm", .domain = runtime, .inputs = {}, .attributes = qgemm_attributes(attrs)};
  planned.add(*a);
  planned.add(*b);
  planned.inputs.push_back(std::move(*bias));
  if (site.y) planned.add_scale(*site.y);
  return planned;
}

// The operands of a MatMul: the second may be a weight with a scale for each column.
std::optional<std::array<CodedOperand, 2>> factors(const QOperatorSite& site, std::string& reason) {
  const auto a = scalar_operand(site, 0, reason);
  const auto b = a ? dequantized(site.match, site.op.input(1), reason) : std::nullopt;
  if (!b || !is_product_pair(*a, *b, reason)) return std::nullopt;
  if (!b->is_scalar()) {
    const Tensor* codes = site.match.types().known_value(b->codes);
    if (codes == nullptr || codes->rank() != 2) {
      reason = fmt::format("'{}' has scales by channel, and is no constant matrix", b->codes->name());
      return std::nullopt;
    }
    if (!has_channel_scales(*b, 1, 2, codes->dim(1), reason)) return std::nullopt;
  }
  return std::array{*a, *b};
}

Planned matmul(const QOperatorSite& site, std::string& reason) {
  const auto operands = factors(site, reason);
  if (!operands || !is_result_type(site, (*operands)[0], reason)) return std::nullopt;
  PlannedOperator planned{.op_type = "QLinearMatMul", .domain = {}, .inputs = {}, .attributes = {}};
  planned.add((*operands)[0]);
  planned.add((*operands)[1]);
  planned.add_scale(*site.y);
  return planned;
}

Planned matmul_to_float(const QOperatorSite& site, std::string& reason) {
  const auto operands = factors(site, reason);
  if (!operands) return std::nullopt;
  const auto& [a, b] = *operands;
  PlannedOperator planned{.op_type = "MatMulIntegerToFloat", .domain = runtime, .inputs = {}, .attributes = {}};
  planned.inputs = {a.codes, b.codes, a.scale, b.scale};
  if (!a.has_zero_zeros() || !b.has_zero_zeros()) {
    planned.inputs.emplace_back(a.zero_point);
    planned.inputs.emplace_back(b.zero_point);
  }
  return planned;
}

// Add and Mul of two activations or constants.
Planned binary(const QOperatorSite& site, std::string& reason) {
  const auto a = scalar_operand(site, 0, reason);
  const auto b = a ? scalar_operand(site, 1, reason) : std::nullopt;
  if (!b || !is_result_type(site, *a, reason)) return std::nullopt;
  if (a->type != b->type) {
    reason = fmt::format("'{}' is {} and '{}' {}", a->codes->name(), name(a->type), b->codes->name(), name(b->type));
    return std::nullopt;
  }
  PlannedOperator planned{.op_type = "QLinear" + site.op.op_type(), .domain = runtime, .inputs = {}, .attributes = {}};
  planned.add(*a);
  planned.add(*b);
  planned.add_scale(*site.y);
  return planned;
}

// One operand, with the attributes that the integer form has.
Planned unary(const QOperatorSite& site, const char* op_type, std::optional<Attributes> attributes,
              std::string& reason) {
  if (!attributes) {
    if (reason.empty()) reason = fmt::format("{} has no such attributes", op_type);
    return std::nullopt;
  }
  const auto x = scalar_operand(site, 0, reason);
  if (!x || !is_result_type(site, *x, reason)) return std::nullopt;
  PlannedOperator planned{.op_type = op_type, .domain = runtime, .inputs = {}, .attributes = std::move(*attributes)};
  planned.add(*x);
  planned.add_scale(*site.y);
  return planned;
}

Planned function(const QOperatorSite& site, std::string& reason) {
  if (site.op.is("Sigmoid")) return unary(site, "QLinearSigmoid", Attributes{}, reason);
  const auto slope = site.op.is("Relu") ? LeakyReluAttrs{.alpha = 0} : LeakyReluAttrs::from(site.op);
  return unary(site, "QLinearLeakyRelu", slope.to_attributes(), reason);
}

Planned pool(const QOperatorSite& site, std::string& reason) {
  if (site.op.is("GlobalAveragePool")) return unary(site, "QLinearGlobalAveragePool", Attributes{}, reason);
  return unary(site, "QLinearAveragePool", qlinear_average_pool_attributes(site.op), reason);
}

Planned concatenation(const QOperatorSite& site, std::string& reason) {
  PlannedOperator planned{
      .op_type = "QLinearConcat", .domain = runtime, .inputs = {}, .attributes = copy_attributes(site.op)};
  planned.add_scale(*site.y);
  for (std::size_t i = 0; i < site.op.input_count(); ++i) {
    const auto x = scalar_operand(site, i, reason);
    if (!x || !is_result_type(site, *x, reason)) return std::nullopt;
    planned.add(*x);
  }
  return planned;
}

// The same quantization before and after: the codes move as the values do.
Planned movement(const QOperatorSite& site, std::string& reason) {
  if (const auto obstacle = code_movement_obstacle(site.op)) {
    reason = *obstacle;
    return std::nullopt;
  }
  PlannedOperator planned{
      .op_type = site.op.op_type(), .domain = {}, .inputs = {}, .attributes = copy_attributes(site.op)};
  for (Value* input : site.op.inputs()) planned.inputs.emplace_back(input);
  const std::size_t moved = site.op.is("Concat") ? site.op.input_count() : 1;
  for (std::size_t i = 0; i < moved; ++i) {
    const auto x = scalar_operand(site, i, reason);
    if (!x) return std::nullopt;
    if (!x->is_like(*site.y)) {
      reason = fmt::format("'{}' and its result are quantized differently", site.op.input(i)->name());
      return std::nullopt;
    }
    planned.inputs[i] = x->codes;
  }
  return planned;
}

// QuantizeLinear of what was dequantized the same way.
Rule requantization_rule() {
  const auto codes = [](const Match& match, std::string& reason) -> std::optional<CodedOperand> {
    const auto x = dequantized(match, match.root->input(0), reason);
    const auto y = x ? quantized(match, *match.root, reason) : std::nullopt;
    if (!y || x->is_like(*y)) return y ? x : std::nullopt;
    reason = fmt::format("'{}' is quantized differently before", match.root->input(0)->name());
    return std::nullopt;
  };
  return {.name = requantization,
          .pattern = Pattern::op("QuantizeLinear|com.microsoft.QuantizeLinear", "quantize",
                                 {Pattern::op("DequantizeLinear|com.microsoft.DequantizeLinear", "dequantize")}),
          .when = [codes](const Match& match) -> std::optional<std::string> {
            std::string reason;
            const auto x = codes(match, reason);
            if (!x) return reason;
            return handing_on_obstacle(*match.root->output(), *x->codes);
          },
          .replace =
              [codes](const Match& match, Patch& patch) {
                std::string reason;
                patch.replace(match.root->output(), codes(match, reason)->codes);
              }};
}

}  // namespace

std::vector<Rule> qoperator_rules(bool contrib) {
  std::vector<Rule> rules;
  const auto add = [&](const char* name, std::string_view ops, const QOperatorPlan& plan) {
    for (Rule& rule : quantized_result_rules(name, ops, plan)) rules.push_back(std::move(rule));
  };
  rules.push_back(requantization_rule());
  add(movement_rule,
      "MaxPool|Reshape|Flatten|Transpose|Squeeze|Unsqueeze|Slice|Gather|Expand|Tile|DepthToSpace|SpaceToDepth|Concat|"
      "Resize",
      movement);
  add("qlinear_conv", "Conv", convolution);
  add("qlinear_matmul", "MatMul", matmul);
  if (!contrib) return rules;
  add("qgemm", "Gemm", gemm);
  add("qlinear_binary", "Add|Mul", binary);
  add("qlinear_concat", "Concat", concatenation);
  add("qlinear_pool", "GlobalAveragePool|AveragePool", pool);
  add("qlinear_function", "Sigmoid|LeakyRelu|Relu", function);
  rules.push_back(float_result_rule("qgemm", "Gemm", gemm));
  rules.push_back(float_result_rule("matmul_integer_to_float", "MatMul", matmul_to_float));
  return rules;
}

bool is_exact_qoperator_rule(std::string_view rule) {
  return rule == requantization || rule == movement_rule;
}

RuleCounts to_qoperators(Model& model, bool contrib) {
  if (!contrib) return apply_rules(model, qoperator_rules(false));
  const WithRuntimeDomain imported(model);
  return apply_rules(model, qoperator_rules(true));
}

}  // namespace onnxpress
