// Operators between DequantizeLinear and QuantizeLinear as operators on 8-bit codes: QLinearConv,
// QLinearMatMul, and with com.microsoft QGemm, QLinearAdd, QLinearMul, QLinearConcat and their like.
//
// What replaces a node computes the same up to one quantum of its result (float arithmetic is
// ordered otherwise); operators that only move elements are moved onto the codes exactly.
#pragma once

#include <string_view>
#include <vector>

#include "graph/rewrite/pattern.h"

namespace onnxpress {

// `contrib`: operators of com.microsoft too; the model must import it while the rules run.
// Quantizations with constant scales per tensor (weights: also per output channel) are converted.
// Never an int8 QLinearSoftmax: ONNX Runtime's wraps where a probability is near 1.
std::vector<Rule> qoperator_rules(bool contrib);

// Whether the rule of that name leaves every value what it is.
bool is_exact_qoperator_rule(std::string_view rule);

// Applies them, importing com.microsoft where it is then used.
RuleCounts to_qoperators(Model& model, bool contrib);

}  // namespace onnxpress
