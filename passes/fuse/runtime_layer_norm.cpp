// ONNX Runtime's SkipLayerNormalization (the sum before a layer normalization) and BiasGelu (the
// sum before a Gelu).
#include "graph/ops/activations.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/skip_layer_norm.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

bool same_shape(const Shape& a, const Shape& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same_dim(a[i], b[i])) return false;
  return true;
}

// A known vector of `size` elements.
bool is_row(const Tracer& tracer, const Value* value, const Dim& size) {
  const Shape* const shape = value != nullptr ? tracer.shape(value) : nullptr;
  return shape != nullptr && shape->size() == 1 && size.is_known() && same_dim((*shape)[0], size);
}

// The operands of a sum where input `position` is a constant vector for the last axis of the other.
struct BiasedSum {
  Node* node = nullptr;
  Value* x = nullptr;
  Value* bias = nullptr;
};

std::optional<BiasedSum> biased_sum(const Tracer& tracer, const Value* value) {
  Node* const sum = tracer.maker(value, {"Add"});
  if (sum == nullptr || sum->output()->is_output() || sum->output()->uses().size() != 1)
    return std::nullopt;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    Value* const x = sum->input(1 - position);
    Value* const bias = sum->input(position);
    const Shape* const shape = x != nullptr ? tracer.shape(x) : nullptr;
    if (shape == nullptr || shape->empty() || bias == nullptr) continue;
    if (tracer.known(bias) != nullptr && is_row(tracer, bias, shape->back()))
      return BiasedSum{sum, x, bias};
  }
  return std::nullopt;
}

struct SkipNorm {
  Node* sum = nullptr;
  Value* x = nullptr;
  Value* skip = nullptr;
  Value* bias = nullptr;  // nullptr: none
  Node* bias_sum = nullptr;
  bool keeps_sum = false;  // others read it
};

std::optional<SkipNorm> find_skip_norm(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  const Node& norm = *match.root;
  SkipNorm found{.sum = tracer.maker(norm.input(0), {"Add"})};
  if (found.sum == nullptr) return std::nullopt;
  found.x = found.sum->input(0);
  found.skip = found.sum->input(1);
  const Shape* const a = tracer.shape(found.x);
  const Shape* const b = tracer.shape(found.skip);
  if (a == nullptr || b == nullptr || !same_shape(*a, *b)) {
    reason = fmt::format("'{}' and '{}' are not known to have the same shape", found.x->name(),
                         found.skip->name());
    return std::nullopt;
  }
  if (a->size() != 2 && a->size() != 3) {
    reason = fmt::format("'{}' has {} axes, expected 2 or 3", found.x->name(), a->size());
    return std::nullopt;
  }
  const std::int64_t axis = LayerNormAttrs::from(norm).axis;
  if (normalize_axis(axis, a->size()) + 1 != std::ssize(*a)) {
    reason = fmt::format("it normalizes from axis {} on, expected the last", axis);
    return std::nullopt;
  }
  if (const auto obstacle = tracer.type_obstacle(found.x)) {
    reason = *obstacle;
    return std::nullopt;
  }
  for (std::size_t i = 1; i < norm.input_count(); ++i) {
    const Value* const parameter = norm.input(i);
    if (parameter == nullptr) continue;
    if (!is_row(tracer, parameter, a->back()) || tracer.dtype(parameter) != tracer.dtype(found.x)) {
      reason = fmt::format("'{}' is {}, expected a vector with a value for each element of a row",
                           parameter->name(), to_string(tracer.type(parameter)));
      return std::nullopt;
    }
  }
  for (std::size_t i = 1; i < norm.output_count(); ++i)
    if (norm.output(i) != nullptr && !norm.output(i)->is_unused()) {
      reason = "its mean or deviation is read";
      return std::nullopt;
    }
  found.keeps_sum = found.sum->output()->is_output() || found.sum->output()->uses().size() > 1;
  for (Value** operand : {&found.x, &found.skip}) {
    const auto biased = biased_sum(tracer, *operand);
    if (!biased) continue;
    *operand = biased->x;
    found.bias = biased->bias;
    found.bias_sum = biased->node;
    break;
  }
  return found;
}

void build_skip_norm(const Match& match, const SkipNorm& found, Patch& patch) {
  Node& norm = *match.root;
  const SkipNormAttrs attrs{.epsilon = LayerNormAttrs::from(norm).epsilon,
                            .simplified = !norm.is("LayerNormalization")};
  OpCall call = attrs.to_call();
  Patch::NodeTemplate node{.op_type = call.op_type,
                           .domain = "com.microsoft",
                           .name = norm.name,
                           .inputs = {found.x, found.skip, norm.input(1)},
                           .attributes = std::move(call.attributes)};
  if (!attrs.simplified && (norm.input(2) != nullptr || found.bias != nullptr))
    node.inputs.emplace_back(norm.input(2));
  if (found.bias != nullptr) node.inputs.emplace_back(found.bias);
  if (found.keeps_sum) {
    node.outputs = 4;
    node.omitted_outputs = {1, 2};
  }
  const Patch::Ref made = patch.node(std::move(node));
  patch.replace(norm.output(), made);
  if (found.keeps_sum) patch.replace(found.sum->output(), patch.output(made, 3));
  patch.remove_if_unread(found.sum);
  if (found.bias_sum != nullptr) patch.remove_if_unread(found.bias_sum);
}

std::optional<BiasedSum> find_bias_gelu(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  const Node& gelu = *match.root;
  if (gelu.input_count() != 1) return std::nullopt;  // FastGelu with its bias
  const auto found = biased_sum(tracer, gelu.input(0));
  if (!found) return std::nullopt;
  if (const auto obstacle = tracer.type_obstacle(found->x)) {
    reason = *obstacle;
    return std::nullopt;
  }
  return found;
}

void build_bias_gelu(const Match& match, const BiasedSum& found, Patch& patch) {
  const bool by_tanh = match.root->op_type() == "FastGelu" || is_tanh_gelu(*match.root);
  patch.replace(match.root->output(), patch.node({.op_type = by_tanh ? "FastGelu" : "BiasGelu",
                                                  .domain = "com.microsoft",
                                                  .inputs = {found.x, found.bias}}));
  patch.remove_if_unread(found.node);
}

class RuntimeLayerNorm : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_layer_norm",
      .summary =
          "sums before a normalization or Gelu go into ONNX Runtime's "
          "SkipLayerNormalization and BiasGelu",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 76};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return {recognition_rule<SkipNorm>(
                "runtime_skip_layer_norm",
                "LayerNormalization|SimplifiedLayerNormalization|RMSNormalization", find_skip_norm,
                build_skip_norm),
            recognition_rule<BiasedSum>("runtime_bias_gelu",
                                        "Gelu|com.microsoft.Gelu|com.microsoft.FastGelu",
                                        find_bias_gelu, build_bias_gelu)};
  }
};

}  // namespace

PASS(runtime_layer_norm) { registry.add(std::make_unique<RuntimeLayerNorm>()); }

}  // namespace onnxpress
