// Leaves out initial states of RNN, GRU and LSTM that are zero, as omitted ones are.
#include <algorithm>
#include <array>

#include "graph/ops/constant.h"
#include "graph/ops/recurrent.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

constexpr std::size_t states[] = {recurrent_input::initial_h, recurrent_input::initial_c};

bool has_zero_bits(const Tensor& tensor) {
  return tensor.dtype() != DType::string &&
         std::ranges::all_of(tensor.bytes(), [](std::byte byte) { return byte == std::byte{0}; });
}

// Operators whose elements are all of their first input.
bool moves(const Node& node) {
  constexpr std::array<std::string_view, 10> operators = {
      "Expand", "Flatten", "Gather", "Identity",  "Reshape",
      "Slice",  "Squeeze", "Tile",   "Transpose", "Unsqueeze"};
  return node.domain().empty() && std::ranges::find(operators, node.op_type()) != operators.end();
}

// Whether each element is +0, whatever the shape.
bool is_zero(const Match& match, const Value* value) {
  constexpr int deepest = 32;
  for (int depth = 0; value && depth < deepest; ++depth) {
    if (const Tensor* tensor = match.types().known_value(value)) return has_zero_bits(*tensor);
    const Node* node = value->producer();
    if (!node) return false;
    if (node->is("ConstantOfShape")) return has_zero_bits(fill_value(*node));
    if (!moves(*node)) return false;
    value = node->input(0);
  }
  return false;
}

std::optional<std::string> obstacle(const Match& match) {
  std::optional<std::string> reason;
  for (const std::size_t state : states) {
    const Value* value = match.root->input(state);
    if (!value) continue;
    if (is_zero(match, value)) return std::nullopt;
    reason = fmt::format("its initial state '{}' is not known to be zero", value->name());
  }
  return reason;
}

void omit(const Match& match, Patch& patch) {
  for (const std::size_t state : states)
    if (const Value* value = match.root->input(state); value && is_zero(match, value))
      patch.replace_input(match.root, state, Patch::Ref());
}

class OmitZeroStates : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "omit_zero_states",
      .summary = "leaves out initial states of RNN, GRU and LSTM that are zero",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 40};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "omit_zero_states",
             .pattern = Pattern::op("RNN|GRU|LSTM", "cell"),
             .when = obstacle,
             .replace = omit}};
  }
};

}  // namespace

PASS(omit_zero_states) { registry.add(std::make_unique<OmitZeroStates>()); }

}  // namespace onnxpress
