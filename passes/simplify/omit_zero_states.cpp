// Omits what recurrent operators take for granted: initial states of zeros, which exporters compute
// from the batch size.
#include <algorithm>
#include <cmath>

#include "graph/ops/constant.h"
#include "graph/ops/recurrent.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

constexpr int deepest_trace = 32;

bool is_zero(const Tensor& tensor) {
  if (!is_float(tensor.dtype())) return false;
  const Tensor wide = tensor.cast(DType::float64);
  return std::ranges::all_of(wide.data<double>(),
                             [](double value) { return value == 0 && !std::signbit(value); });
}

// Whether all elements are +0, whatever the shape: constants, ConstantOfShape, and what only moves
// their elements.
bool is_zero(const Value* value, int depth = 0) {
  if (!value || depth > deepest_trace) return false;
  const Node* node = value->producer();
  if (node && has_open_attributes(*node)) return false;
  if (const auto constant = constant_contents(value)) return is_zero(*constant);
  if (!node) return false;
  if (node->is("ConstantOfShape")) return is_zero(fill_element(*node));
  if (node->is("Concat"))
    return std::ranges::all_of(node->inputs(),
                               [&](const Value* part) { return is_zero(part, depth + 1); });
  constexpr std::string_view movers[] = {"Slice",     "Expand",   "Reshape", "Squeeze", "Unsqueeze",
                                         "Transpose", "Identity", "Tile",    "Split",   "Gather"};
  const bool moves =
      std::ranges::any_of(movers, [&](std::string_view type) { return node->is(type); });
  return moves && is_zero(node->input(0), depth + 1);
}

constexpr std::size_t states[] = {recurrent_input::initial_h, recurrent_input::initial_c};

std::optional<std::string> obstacle(const Match& match) {
  const auto given = [&](std::size_t index) { return match.root->input(index) != nullptr; };
  if (std::ranges::none_of(states, given) || is_unread(*match.root)) return "";
  const auto zero = [&](std::size_t index) {
    return given(index) && is_zero(match.root->input(index));
  };
  if (std::ranges::none_of(states, zero)) return "its initial states are not known to be zeros";
  return std::nullopt;
}

void omit(const Match& match, Patch& patch) {
  for (const std::size_t index : states) {
    const Value* state = match.root->input(index);
    if (!state || !is_zero(state)) continue;
    patch.replace_input(match.root, index, {});
    Node* producer = state->producer();
    if (producer && &producer->graph() == &match.root->graph()) patch.remove_if_unread(producer);
  }
}

class OmitZeroStates : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "omit_zero_states",
      .summary = "omits initial states of LSTM, GRU and RNN that are zeros",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 22};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "omit_zero_states",
             .pattern = Pattern::op("LSTM|GRU|RNN", "recurrent"),
             .when = obstacle,
             .replace = omit}};
  }
};

}  // namespace

PASS(omit_zero_states) { registry.add(std::make_unique<OmitZeroStates>()); }

}  // namespace onnxpress
