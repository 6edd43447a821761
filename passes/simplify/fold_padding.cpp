// Folds a Pad into the padding of the convolution or pooling behind it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/conv.h"
#include "graph/ops/pad.h"
#include "graph/ops/pool.h"
#include "passes/common/linear_operator.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

Window window_of(const Node& node) {
  return node.is("Conv") ? ConvAttrs::from(node).window : PoolAttrs::from(node).window;
}

// The pads of the spatial axes, begins, then ends; nothing when others are padded or something is
// cut off.
std::optional<std::vector<std::int64_t>> spatial_pads(const std::vector<std::int64_t>& pads,
                                                      std::size_t spatial) {
  const std::size_t rank = spatial + 2;
  if (pads.size() != 2 * rank) return std::nullopt;
  std::vector<std::int64_t> found;
  for (std::size_t i = 0; i < pads.size(); ++i) {
    if (i % rank >= 2) found.push_back(pads[i]);
    if (pads[i] < 0 || (i % rank < 2 && pads[i] != 0)) return std::nullopt;
  }
  return found;
}

// The window with the padding of both.
Window padded(const Match& match) {
  Window window = window_of(*match.root);
  const auto pads = *spatial_pads(*PadAttrs::from(*match.node("pad")).pads, window.rank());
  for (std::size_t i = 0; i < pads.size(); ++i) window.pads[i] += pads[i];
  window.auto_pad = AutoPad::notset;  // VALID is no padding
  return window;
}

std::optional<std::string> conv_obstacle(const Match& match, double fill) {
  if (fill != 0 || std::signbit(fill))
    return fmt::format("it pads with {}, a convolution with 0", fill);
  const Tensor* weight = match.root->input(1)->constant();
  return weight && all_finite(*weight)
             ? std::nullopt
             : std::optional<std::string>("the weights are not known to be finite");
}

std::optional<std::string> pool_obstacle(const Match& match, double fill) {
  const Node& pool = *match.root;
  const PoolAttrs attrs = PoolAttrs::from(pool);
  if (attrs.window.ceil_mode) return "the pooling rounds sizes up";
  const Window window = padded(match);
  for (std::size_t i = 0; i < window.pads.size(); ++i)
    if (window.pads[i] >= window.kernel[i % window.rank()] ||
        window.dilations[i % window.rank()] != 1)
      return "a window may lie in the padding alone";
  if (pool.is("MaxPool")) {
    if (pool.output(1) && !pool.output(1)->is_unused()) return "its output of indices is in use";
    const DType type = match.type(pool.input(0)).elem;
    if (is_float(type) && fill == -std::numeric_limits<double>::infinity()) return std::nullopt;
    return fmt::format("it pads with {}, a maximum with -inf", fill);
  }
  if (fill != 0 || std::signbit(fill))
    return fmt::format("it pads with {}, an average with 0", fill);
  if (!PoolAttrs::may_include_padding(pool))
    return "averages of this opset do not count the padding";
  const bool has_pads =
      std::ranges::any_of(attrs.window.pads, [](std::int64_t pad) { return pad != 0; });
  if (has_pads && !attrs.count_include_pad) return "the pooling does not count its own padding";
  return std::nullopt;
}

std::optional<std::string> obstacle(const Match& match) {
  const Node& root = *match.root;
  const Node& pad = *match.node("pad");
  if (has_open_attributes(root) || has_open_attributes(pad))
    return "attributes are parameters of the function";
  if (root.is("Conv") && (!root.input(1) || !root.input(1)->constant()))
    return "the weights are not a constant";
  const PadAttrs attrs = PadAttrs::from(pad);
  if (attrs.mode != PadMode::constant) return "it pads with other than a constant";
  if (!attrs.pads || !attrs.value) return "its pads or its value are not known";
  const Window window = window_of(root);
  if (window.auto_pad == AutoPad::same_upper || window.auto_pad == AutoPad::same_lower)
    return "the padding behind it depends on the size (auto_pad)";
  if (!spatial_pads(*attrs.pads, window.rank()))
    return "it pads other than spatial axes, or cuts off";
  return root.is("Conv") ? conv_obstacle(match, *attrs.value) : pool_obstacle(match, *attrs.value);
}

void fold(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  Attributes attributes;
  if (root.is("Conv")) {
    ConvAttrs attrs = ConvAttrs::from(root);
    attrs.window = padded(match);
    attributes = attrs.to_attributes();
  } else {
    PoolAttrs attrs = PoolAttrs::from(root);
    attrs.window = padded(match);
    attrs.count_include_pad = root.is("AveragePool");
    attributes = attrs.to_attributes();
  }
  std::vector<Patch::Ref> inputs(root.inputs().begin(), root.inputs().end());
  inputs[0] = match.node("pad")->input(0);
  patch.replace(root.output(), patch.node({.op_type = root.op_type(),
                                           .name = root.name,
                                           .inputs = std::move(inputs),
                                           .attributes = std::move(attributes)}));
}

class FoldPadding : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fold_padding",
      .summary = "folds a Pad into the padding of the Conv, MaxPool or AveragePool behind it",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 36};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {
        {.name = "fold_padding",
         .pattern = Pattern::op("Conv|MaxPool|AveragePool", "window", {Pattern::op("Pad", "pad")}),
         .when = obstacle,
         .replace = fold}};
  }
};

}  // namespace

PASS(fold_padding) { registry.add(std::make_unique<FoldPadding>()); }

}  // namespace onnxpress
