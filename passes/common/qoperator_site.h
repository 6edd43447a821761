// What the rules of qoperator.h share: how values are quantized around an operator, and its replacement.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/rewrite/pattern.h"

namespace onnxpress {

// Codes with the constant scale and zero point of a DequantizeLinear, or those that a QuantizeLinear
// makes (`codes` is then its result).
struct CodedOperand {
  Value* codes = nullptr;
  Value* scale = nullptr;
  Value* zero_point = nullptr;  // nullptr: zero
  DType type = DType::undefined;
  const Tensor* scales = nullptr;
  const Tensor* zeros = nullptr;  // nullptr: zero
  std::int64_t axis = 0;          // of several scales

  bool is_scalar() const;
  float scale_number() const;            // of one scale
  std::int64_t zero_number() const;      // of one zero point
  bool has_zero_zeros() const;           // all zero points are 0
  bool is_like(const CodedOperand& other) const;  // same type, scale and zero point; both scalar
};

// An operator whose result is quantized, or not.
struct QOperatorSite {
  const Match& match;
  Node& op;
  std::optional<CodedOperand> y;  // nothing: it stays in float
};

// One input of the operator that replaces the node: a value, a new constant, or omitted.
struct PlannedInput {
  Value* value = nullptr;
  std::string hint;
  Tensor constant;

  PlannedInput() = default;
  PlannedInput(Value* existing) : value(existing) {}  // NOLINT: existing values stand for themselves
  PlannedInput(std::string name, Tensor tensor) : hint(std::move(name)), constant(std::move(tensor)) {}
};

struct PlannedOperator {
  std::string op_type, domain;
  std::vector<PlannedInput> inputs;
  Attributes attributes;

  // Codes, scale and zero point, as most operators take them. Without a zero point: a constant one.
  void add(const CodedOperand& coded);
  void add_scale(const CodedOperand& coded);  // scale and zero point only
};

// The replacement, or in `reason` why there is none.
using QOperatorPlan = std::function<std::optional<PlannedOperator>(const QOperatorSite&, std::string& reason)>;

// What DequantizeLinear makes of 8-bit (or, with `wide`, int32) codes; else `reason` says why not.
std::optional<CodedOperand> dequantized(const Match& match, const Value* value, std::string& reason,
                                      bool wide = false);
// What a QuantizeLinear makes: 8-bit codes of one scale.
std::optional<CodedOperand> quantized(const Match& match, const Node& quantize, std::string& reason);
// The constant codes of a weight.
std::optional<CodedOperand> coded_weight(const Match& match, const Value* value, std::string& reason);

// Bias `value` in units of x's scale times each of w's, int32: the codes it has, or new ones. A bias
// that is omitted is an omitted input.
std::optional<PlannedInput> integer_bias(const Match& match, Value* value, std::int64_t channels,
                                         float x_scale, const Tensor& w_scales, std::string& reason);

// For operators whose result is read by QuantizeLinear alone, also through a Relu or Clip which the
// saturation of the codes does anyway.
std::vector<Rule> quantized_result_rules(const std::string& name, std::string_view ops, const QOperatorPlan& plan);
// For operators whose result is read as floats.
Rule float_result_rule(const std::string& name, std::string_view ops, const QOperatorPlan& plan);

}  // namespace onnxpress
