#include "passes/common/qoperator_site.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/clip.h"
#include "graph/ops/quantize_linear.h"
#include "passes/common/rewriting.h"

namespace onnxpress {
namespace {

constexpr std::string_view quantizer = "QuantizeLinear|com.microsoft.QuantizeLinear";

bool is_quantizer(const Node& node) {
  return node.is("QuantizeLinear") || node.is("QuantizeLinear", "com.microsoft");
}

bool is_code_type(DType type) { return type == DType::int8 || type == DType::uint8; }

// Scale and zero point of a QuantizeLinear or DequantizeLinear, into `coded`.
bool read_scales(const Match& match, const Node& node, CodedOperand& coded, std::string& reason) {
  coded.scale = node.input(1);
  coded.zero_point = node.input(2);
  coded.scales = match.types().known_value(coded.scale);
  coded.zeros = coded.zero_point ? match.types().known_value(coded.zero_point) : nullptr;
  const QuantizeAttrs attrs = QuantizeAttrs::from(node);
  coded.axis = attrs.axis;
  if (!coded.scales || (coded.zero_point && !coded.zeros))
    reason = fmt::format("the scale or zero point of {} is not constant", node.describe());
  else if (coded.scales->dtype() != DType::float32)
    reason = fmt::format("the scale of {} is {}, expected float32", node.describe(), name(coded.scales->dtype()));
  else if (attrs.block_size != 0)
    reason = fmt::format("{} has scales by block", node.describe());
  else
    return true;
  return false;
}

// Whether the codes saturate where `activation` (Relu or Clip) does, or sooner.
bool is_saturation(const Node& activation, const CodedOperand& coded) {
  const double scale = static_cast<double>(coded.scale_number());
  const auto zero = static_cast<double>(coded.zero_number());
  const double least = scale * ((coded.type == DType::int8 ? -128.0 : 0.0) - zero);
  const double most = scale * ((coded.type == DType::int8 ? 127.0 : 255.0) - zero);
  if (activation.is("Relu")) return least >= 0;
  const auto bounds = ClipBounds::from(activation);
  return bounds && least >= bounds->low && most <= bounds->high;
}

// Whether the only reader is a QuantizeLinear, or an activation before one that its codes take over.
bool is_quantized_by_reader(const Match& match, const Node& op) {
  const auto only_reader = [](const Node& node) -> const Node* {
    const Value& value = *node.output();
    return !value.is_output() && value.uses().size() == 1 ? value.uses()[0].node : nullptr;
  };
  const Node* reader = only_reader(op);
  if (reader != nullptr && is_quantizer(*reader)) return true;
  if (reader == nullptr || !(reader->is("Relu") || reader->is("Clip"))) return false;
  const Node* const last = only_reader(*reader);
  if (last == nullptr || !is_quantizer(*last)) return false;
  std::string reason;
  const auto y = quantized(match, *last, reason);
  return y && is_saturation(*reader, *y);
}

std::optional<QOperatorSite> site_of(const Match& match, std::string& reason) {
  Node* const op = match.node("op");
  if (has_open_attributes(*op)) {
    reason = "its attributes are parameters of a function";
    return std::nullopt;
  }
  const auto y = quantized(match, *match.root, reason);
  if (!y) return std::nullopt;
  const Node* const activation = match.node("activation");
  if (activation != nullptr && !is_saturation(*activation, *y)) {
    reason = fmt::format("the codes hold values that {} does away with", activation->describe());
    return std::nullopt;
  }
  return QOperatorSite{match, *op, y};
}

void replace(const QOperatorSite& site, Value* result, PlannedOperator planned, Patch& patch) {
  Patch::NodeTemplate made{.op_type = std::move(planned.op_type),
                           .domain = std::move(planned.domain),
                           .name = site.op.name,
                           .attributes = std::move(planned.attributes)};
  for (PlannedInput& input : planned.inputs) {
    if (input.constant.defined())
      made.inputs.push_back(shared_constant(patch, result->graph(), std::move(input.hint), std::move(input.constant)));
    else
      made.inputs.emplace_back(input.value);
  }
  patch.replace(result, patch.node(std::move(made)));
}

}  // namespace

bool CodedOperand::is_scalar() const {
  return scales->size() == 1 && (zeros == nullptr || zeros->size() == 1);
}

float CodedOperand::scale_number() const { return scales->data<float>()[0]; }

std::int64_t CodedOperand::zero_number() const { return zeros == nullptr ? 0 : zeros->to_ints()[0]; }

bool CodedOperand::has_zero_zeros() const {
  return zeros == nullptr || std::ranges::all_of(zeros->to_ints(), [](auto zero) { return zero == 0; });
}

bool CodedOperand::is_like(const CodedOperand& other) const {
  return is_scalar() && other.is_scalar() && type == other.type && scale_number() == other.scale_number() &&
         zero_number() == other.zero_number();
}

void PlannedOperator::add_scale(const CodedOperand& coded) {
  inputs.emplace_back(coded.scale);
  if (coded.zero_point) inputs.emplace_back(coded.zero_point);
  else inputs.emplace_back("zero_point", Tensor(coded.type, coded.scales->dims()));
}

void PlannedOperator::add(const CodedOperand& coded) {
  inputs.emplace_back(coded.codes);
  add_scale(coded);
}

std::optional<CodedOperand> quantized(const Match& match, const Node& quantize, std::string& reason) {
  CodedOperand coded{.codes = quantize.output()};
  if (!read_scales(match, quantize, coded, reason)) return std::nullopt;
  coded.type = match.type(coded.codes).elem;
  if (!is_code_type(coded.type)) {
    reason = fmt::format("its result is quantized to {}, expected int8 or uint8", name(coded.type));
    return std::nullopt;
  }
  if (!coded.is_scalar()) {
    reason = "its result has scales by channel";
    return std::nullopt;
  }
  return coded;
}

std::optional<CodedOperand> dequantized(const Match& match, const Value* value, std::string& reason, bool wide) {
  const Node* const node = value != nullptr ? value->producer() : nullptr;
  if (node == nullptr || !(node->is("DequantizeLinear") || node->is("DequantizeLinear", "com.microsoft"))) {
    reason = fmt::format("its input '{}' is not dequantized", value != nullptr ? value->name() : "");
    return std::nullopt;
  }
  CodedOperand coded{.codes = node->input(0)};
  if (!read_scales(match, *node, coded, reason)) return std::nullopt;
  coded.type = match.type(coded.codes).elem;
  if (wide ? coded.type != DType::int32 : !is_code_type(coded.type)) {
    reason = fmt::format("its input '{}' is dequantized from {}", value->name(), name(coded.type));
    return std::nullopt;
  }
  return coded;
}

std::optional<CodedOperand> coded_weight(const Match& match, const Value* value, std::string& reason) {
  auto coded = dequantized(match, value, reason);
  if (coded && !match.types().known_value(coded->codes)) {
    reason = fmt::format("its weight '{}' is not constant", value->name());
    coded.reset();
  }
  return coded;
}

std::optional<PlannedInput> integer_bias(const Match& match, Value* value, std::int64_t channels, float x_scale,
                                         const Tensor& w_scales, std::string& reason) {
  if (value == nullptr) return PlannedInput();
  const auto unit = [&](std::int64_t channel) {
    const std::span<const float> scales = w_scales.data<float>();
    const float scale = scales[scales.size() > 1 ? static_cast<std::size_t>(channel) : 0];
    return static_cast<double>(x_scale) * static_cast<double>(scale);
  };
  std::vector<double> numbers;
  bool is_exact = false;
  CodedOperand coded;
  if (const Tensor* floats = match.types().known_value(value); floats && floats->dtype() == DType::float32) {
    for (const float number : floats->data<float>()) numbers.push_back(static_cast<double>(number));
  } else {
    const auto found = dequantized(match, value, reason, true);
    if (!found) return std::nullopt;
    coded = *found;
    const Tensor* codes = match.types().known_value(coded.codes);
    if (codes == nullptr || !coded.has_zero_zeros()) {
      reason = fmt::format("its bias '{}' is not constant, or has a zero point", value->name());
      return std::nullopt;
    }
    const std::span<const float> scales = coded.scales->data<float>();
    const std::span<const std::int32_t> given = codes->data<std::int32_t>();
    if (std::ssize(given) != channels || (scales.size() != 1 && scales.size() != given.size())) {
      reason = fmt::format("its bias '{}' is {}, expected one for each of {} channels", value->name(),
                           to_string(codes->dims()), channels);
      return std::nullopt;
    }
    is_exact = codes->rank() == 1;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double scale = static_cast<double>(scales[scales.size() > 1 ? static_cast<std::size_t>(c) : 0]);
      is_exact = is_exact && std::abs(scale - unit(c)) <= 1e-6 * unit(c);
      numbers.push_back(static_cast<double>(given[static_cast<std::size_t>(c)]) * scale);
    }
  }
  if (std::ssize(numbers) != channels) {
    reason = fmt::format("its bias '{}' has {} elements, expected {}", value->name(), numbers.size(), channels);
    return std::nullopt;
  }
  if (is_exact) return PlannedInput(coded.codes);
  Tensor codes = Tensor::uninitialized(DType::int32, {channels});
  for (std::int64_t c = 0; c < channels; ++c) {
    const double code = std::nearbyint(numbers[static_cast<std::size_t>(c)] / unit(c));
    if (!(std::abs(code) <= static_cast<double>(std::numeric_limits<std::int32_t>::max()))) {
      reason = fmt::format("its bias '{}' does not fit into int32 in units of the products", value->name());
      return std::nullopt;
    }
    codes.mutable_data<std::int32_t>()[static_cast<std::size_t>(c)] = static_cast<std::int32_t>(code);
  }
  return PlannedInput(value->name() + "_quantized", std::move(codes));
}

std::vector<Rule> quantized_result_rules(const std::string& name, std::string_view ops, const QOperatorPlan& plan) {
  const auto when = [plan](const Match& match) -> std::optional<std::string> {
    std::string reason;
    const auto site = site_of(match, reason);
    if (site && plan(*site, reason)) return std::nullopt;
    return reason;
  };
  const auto put = [plan](const Match& match, Patch& patch) {
    std::string reason;
    const auto site = site_of(match, reason);
    replace(*site, match.root->output(), *plan(*site, reason), patch);
  };
  const Pattern op = Pattern::op(ops, "op");
  return {{.name = name, .pattern = Pattern::op(quantizer, "quantize", {op}), .when = when, .replace = put},
          {.name = name,
           .pattern = Pattern::op(quantizer, "quantize", {Pattern::op("Relu|Clip", "activation", {op})}),
           .when = when,
           .replace = put}};
}

Rule float_result_rule(const std::string& name, std::string_view ops, const QOperatorPlan& plan) {
  return {.name = name,
          .pattern = Pattern::op(ops, "op"),
          .when = [plan](const Match& match) -> std::optional<std::string> {
            std::string reason;
            if (has_open_attributes(*match.root)) return "its attributes are parameters of a function";
            if (is_quantized_by_reader(match, *match.root)) return "its result is quantized";
            if (plan({match, *match.root, std::nullopt}, reason)) return std::nullopt;
            return reason;
          },
          .replace =
              [plan](const Match& match, Patch& patch) {
                std::string reason;
                const QOperatorSite site{match, *match.root, std::nullopt};
                replace(site, match.root->output(), *plan(site, reason), patch);
              }};
}

}  // namespace onnxpress
