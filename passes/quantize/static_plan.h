// Which nodes of a model run on codes, and which values are quantized for it.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "graph/ops/infer.h"
#include "passes/quantize/operator_roles.h"
#include "passes/quantize/static_types.h"

namespace onnxpress {

// What may not be quantized, and why: nodes by their place in StaticPlan::nodes, values by
// calibration_key().
struct Exclusions {
  std::map<std::size_t, std::string> nodes;
  std::map<std::string, std::string, std::less<>> values;
};

struct PlannedNode {
  Node* node = nullptr;
  OperatorUse use;
  int bits = 0;              // of its weights
  int activation_bits = 0;
  bool on_codes = false;     // reads codes, and writes them where `result` is a coded value
  bool weights = false;      // its constant weights are quantized
  Value* result = nullptr;   // output 0, or that of the Relu or Clip behind it
  Node* absorbed = nullptr;  // that Relu or Clip
  std::string reason;        // why it is left in float, wholly or but for its weights
};

// A value between QuantizeLinear and DequantizeLinear.
struct CodedValue {
  Value* value = nullptr;
  std::size_t group = 0;        // values of a group share scale and zero point
  bool is_source = true;        // its range is its own; else it is made of elements of others of its group
  bool made_on_codes = false;   // by a node on codes: everyone reads what is dequantized
  const PlannedNode* maker = nullptr;  // nullptr: an input
  std::vector<Use> readers;     // on codes
  int bits = 8;
};

struct StaticPlan {
  std::vector<PlannedNode> nodes;  // of the main graph and those nested in it, outermost first
  std::vector<CodedValue> values;  // in order of nodes; inputs first
  std::size_t groups = 0;
  // Constants that hold a mask, by calibration_key(): what is below is masked (softmax_range.h).
  std::map<std::string, float, std::less<>> masked_constants;
};

// A node is on codes when the target runs it so and
// - it multiplies with constants, or activations with each other, or
// - it computes on codes that are there anyway, for a node on codes behind it (so what follows the
//   last product, as a Softmax or a Concat of heads, stays in float).
StaticPlan plan_static(const Model& model, const TypeInference& types, const StaticTypes& kinds,
                       const QuantizeRequest& request, const Exclusions& exclusions);

}  // namespace onnxpress
