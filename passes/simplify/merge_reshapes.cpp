// Merges operators that only give the same elements other dims: Reshape, Flatten, Squeeze,
// Unsqueeze, a Transpose of axes of size 1, one after another or behind an operator that can give
// the dims itself.
#include <algorithm>

#include "graph/ops/constant.h"
#include "graph/ops/gather.h"
#include "graph/ops/reduce.h"
#include "graph/ops/reshape.h"
#include "graph/ops/transpose.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

constexpr std::string_view reshapers = "Reshape|Flatten|Squeeze|Unsqueeze|Transpose";
using Axes = std::vector<std::int64_t>;

// Whether a Transpose moves axes of size 1 only: it keeps the order of the elements.
bool moves_only_ones(const Match& match, const Node& node) {
  const Type& type = match.type(node.input(0));
  if (!type.shape || has_open_attributes(node)) return false;
  std::int64_t last = -1;
  for (const std::int64_t axis : transpose_permutation(node, type.shape->size())) {
    if ((*type.shape)[static_cast<std::size_t>(axis)].value() == 1) continue;
    if (axis < last) return false;
    last = axis;
  }
  return true;
}

bool is_reshaper(const Match& match, const Node* node) {
  if (!node || !node->input(0)) return false;
  return node->is("Reshape") || node->is("Flatten") || node->is("Squeeze") ||
         node->is("Unsqueeze") || (node->is("Transpose") && moves_only_ones(match, *node));
}

// The operator of that kind in front of a match's root, or nullptr.
Node* reshaper_before(const Match& match) {
  Node* inner = match.root->input(0) ? match.root->input(0)->producer() : nullptr;
  return is_reshaper(match, inner) && &inner->graph() == &match.root->graph() &&
                 match.root->output()
             ? inner
             : nullptr;
}

bool has_one_reader(const Node& node) {
  return node.output()->uses().size() == 1 && !node.output()->is_output();
}

// The first value of the chain in front of the root that has the type of its result already.
Value* same_before(const Match& match) {
  const Type& type = match.type(match.root->output());
  Value* found = nullptr;
  for (Node* node = reshaper_before(match); is_reshaper(match, node);
       node = node->input(0)->producer())
    if (same_type(match.type(node->input(0)), type)) found = node->input(0);
  return found;
}

// --- chains that end where they began ---

std::optional<std::string> cancel_obstacle(const Match& match) {
  if (!is_reshaper(match, match.root) || !reshaper_before(match) ||
      match.root->output()->is_unused())
    return "";
  const Value* before = same_before(match);
  if (!before) return "its result has a shape that no value before it has";
  return handing_on_obstacle(*match.root->output(), *before);
}

// --- Reshape behind another ---

// Whether a target's entry that copies an input's dim copies the same one of `x` as of `old`.
bool copies_alike(const Match& match, const Value* x, const Value* old, std::size_t index) {
  const Type& from = match.type(x);
  const Type& to = match.type(old);
  return from.shape && to.shape && index < from.shape->size() && index < to.shape->size() &&
         same_dim((*from.shape)[index], (*to.shape)[index]);
}

// Whether the target means the same for the input of `inner` as for its result.
bool means_the_same(const Match& match, const Node& inner) {
  const Node& root = *match.root;
  const auto copies_at = [&](std::size_t index) {
    return copies_alike(match, inner.input(0), root.input(0), index);
  };
  if (const auto fixed = ReshapeTarget::from(root)) {
    for (std::size_t i = 0; i < fixed->dims.size(); ++i)
      if (fixed->dims[i] == 0 && !fixed->allow_zero && !copies_at(i)) return false;
    return true;
  }
  const auto contents = match.types().symbolic(root.input(1));  // a symbol may turn out to be 0
  if (!contents) return false;
  for (std::size_t i = 0; i < contents->size(); ++i)
    if ((*contents)[i].value() <= 0 && !copies_at(i)) return false;
  return true;
}

std::optional<std::string> skip_obstacle(const Match& match) {
  const Node* inner = reshaper_before(match);
  if (!inner || is_unread(*match.root)) return "";
  if (has_open_attributes(*match.root)) return "its attributes are parameters of the function";
  if (means_the_same(match, *inner)) return std::nullopt;
  return fmt::format("its target may copy dims of '{}' that '{}' does not have",
                     match.root->input(0)->name(), inner->input(0)->name());
}

void skip(const Match& match, Patch& patch) {
  Node* inner = reshaper_before(match);
  patch.replace_input(match.root, 0, inner->input(0));
  patch.remove_if_unread(inner);
}

// --- Squeeze behind Squeeze, Unsqueeze behind Unsqueeze ---

// Sorted and non-negative: for a known rank, or as they are.
std::optional<Axes> sorted_axes(const std::optional<Axes>& axes, std::optional<std::size_t> rank) {
  if (!axes) return std::nullopt;
  if (rank) return normalize_axes(*axes, *rank);
  Axes sorted = *axes;
  std::ranges::sort(sorted);
  return sorted.empty() || sorted.front() < 0 ? std::nullopt : std::optional(std::move(sorted));
}

// The same of a Squeeze or Unsqueeze.
std::optional<Axes> known_axes(const Match& match, const Node& node) {
  const auto axes = axes_argument(node);
  const Type& type = match.type(node.input(0));
  std::optional<std::size_t> rank;
  if (type.shape && axes) rank = type.shape->size() + (node.is("Unsqueeze") ? axes->size() : 0);
  return sorted_axes(axes, rank);
}

// The axes of both at once: those of `through` and, counted past them, those of `others`.
Axes joined(const Axes& through, const Axes& others) {
  Axes all = through;
  for (const std::int64_t axis : others) {
    std::int64_t place = axis;
    for (const std::int64_t taken : through) place += taken <= place;
    all.push_back(place);
  }
  std::ranges::sort(all);
  return all;
}

std::optional<Axes> joined_axes(const Match& match) {
  const Node* inner = reshaper_before(match);
  const auto first = known_axes(match, *inner);
  const auto second = known_axes(match, *match.root);
  if (!first || !second) return std::nullopt;
  return match.root->is("Squeeze") ? joined(*first, *second) : joined(*second, *first);
}

std::optional<std::string> join_obstacle(const Match& match) {
  const Node* inner = reshaper_before(match);
  if (!inner || !inner->is(match.root->op_type())) return "";
  if (has_open_attributes(*match.root) || has_open_attributes(*inner))
    return "its attributes are parameters of the function";
  if (!has_one_reader(*inner))
    return fmt::format("its input '{}' has another reader", inner->output()->name());
  if (!joined_axes(match)) return "axes or ranks are not known";
  return std::nullopt;
}

void join(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  const std::int64_t opset = root.opset();
  Axes axes = *joined_axes(match);
  OpCall call = root.is("Squeeze") ? make_squeeze(opset, std::move(axes))
                                   : make_unsqueeze(opset, std::move(axes));
  patch.replace(root.output(), add_call(patch, root.graph(), std::move(call),
                                        {reshaper_before(match)->input(0)}, root.name));
}

// --- any other pair ---

// Dims for a Reshape to the result of the pair: 0 where a dim that is not known stays at its place,
// at most one -1, and that only where no dim may be 0.
std::optional<Dims> merged_target(const Match& match) {
  const Type& from = match.type(reshaper_before(match)->input(0));
  const Type& to = match.type(match.root->output());
  if (!to.shape) return std::nullopt;
  Dims target;
  std::size_t inferred = 0;
  bool may_be_empty = false;
  for (std::size_t i = 0; i < to.shape->size(); ++i) {
    const Dim& dim = (*to.shape)[i];
    if (dim.value() > 0) {
      target.push_back(dim.value());
    } else if (from.shape && i < from.shape->size() && same_dim((*from.shape)[i], dim)) {
      target.push_back(0);
      may_be_empty = true;
    } else {
      target.push_back(-1);
      ++inferred;
    }
  }
  if (inferred > 1 || (inferred == 1 && may_be_empty)) return std::nullopt;
  return target;
}

std::optional<std::string> merge_obstacle(const Match& match) {
  const Node* inner = reshaper_before(match);
  if (!inner || !is_reshaper(match, match.root) || match.root->output()->is_unused()) return "";
  if (!has_one_reader(*inner))
    return fmt::format("its input '{}' has another reader", inner->output()->name());
  if (!merged_target(match))
    return fmt::format("its result is {}: not one dim to infer",
                       to_string(match.type(match.root->output())));
  return std::nullopt;
}

void merge(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  patch.replace(root.output(),
                add_call(patch, root.graph(), make_reshape(root.opset(), *merged_target(match)),
                         {reshaper_before(match)->input(0)}, root.name));
}

// --- reductions ---

struct Reduction {
  Node* node;
  Axes axes;
  bool keepdims;
};

// The reduction in front of a match's root whose only reader it is, if its axes are known.
std::optional<Reduction> reduction_before(const Match& match) {
  Node* node = match.node("reduction");
  const ReduceAttrs attrs = ReduceAttrs::from(*node);
  const Type& type = match.type(node->input(0));
  if (!attrs.axes) return std::nullopt;
  if (type.shape)
    return Reduction{
        node, ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, type.shape->size()),
        attrs.keepdims};
  const auto axes = sorted_axes(attrs.axes, std::nullopt);
  return axes ? std::optional(Reduction{node, *axes, attrs.keepdims}) : std::nullopt;
}

std::optional<std::string> reduction_obstacle(const Match& match) {
  const Node& root = *match.root;
  if (has_open_attributes(root) || has_open_attributes(*match.node("reduction")))
    return "its attributes are parameters of the function";
  const auto reduction = reduction_before(match);
  if (!reduction) return "the axes of the reduction are not known";
  if (reduction->axes.empty()) return "the reduction has no axes";
  if (root.is(reduction->keepdims ? "Squeeze" : "Unsqueeze")) {
    if (known_axes(match, root) == reduction->axes) return std::nullopt;
    return "its axes are not those of the reduction";
  }
  const Type& type = match.type(reduction->node->input(0));
  if (!type.shape) return "the rank of the reduction's input is not known";
  if (!is_reshaper(match, match.root)) return "it moves axes";
  const Shape wanted = reduced_dims(*type.shape, reduction->axes, !reduction->keepdims);
  const Type& result = match.type(root.output());
  if (result.shape && std::ranges::equal(wanted, *result.shape, same_dim)) return std::nullopt;
  return fmt::format("its result is {}, the reduction could give {}", to_string(result),
                     to_string(wanted));
}

void toggle_keepdims(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  const Reduction reduction = *reduction_before(match);
  OpCall call =
      make_reduce(reduction.node->op_type(), root.opset(), reduction.axes, !reduction.keepdims);
  patch.replace(root.output(), add_call(patch, root.graph(), std::move(call),
                                        {reduction.node->input(0)}, reduction.node->name));
}

// --- Gather of one index ---

// The index of the Gather in front of a Squeeze or Unsqueeze with or without the axis of size 1
// that the latter takes or adds; a reason where it does something else.
std::optional<Tensor> reshaped_index(const Match& match, std::string& reason) {
  const Node& root = *match.root;
  const Node& gather = *match.node("gather");
  reason = "its attributes are parameters of the function";
  if (has_open_attributes(root) || has_open_attributes(gather)) return std::nullopt;
  const auto index = constant_contents(gather.input(1));
  const auto axes = known_axes(match, root);
  const Type& type = match.type(gather.input(0));
  reason = "index, axes or rank are not known";
  if (!index || !axes || !type.shape) return std::nullopt;
  reason = "it is not the axis of a single index";
  const std::int64_t axis = normalize_axis(gather_axis(gather), type.shape->size());
  const bool adds = root.is("Unsqueeze");
  if (*axes != Axes{axis} || index->size() != 1 || index->rank() != (adds ? 0 : 1))
    return std::nullopt;
  return index->reshaped(adds ? Dims{1} : Dims{});
}

std::optional<std::string> gather_obstacle(const Match& match) {
  std::string reason;
  return reshaped_index(match, reason) ? std::nullopt : std::optional(std::move(reason));
}

void reshape_index(const Match& match, Patch& patch) {
  const Node& gather = *match.node("gather");
  std::string reason;
  OpCall call = make_gather(gather_axis(gather));
  call.constants.push_back(*reshaped_index(match, reason));
  patch.replace(match.root->output(),
                add_call(patch, gather.graph(), std::move(call), {gather.input(0)}, gather.name));
}

// --- ConstantOfShape ---

// The dims that the root gives a ConstantOfShape, or nothing where they are not known.
std::optional<Dims> filled_dims(const Match& match, const Node& reshaper) {
  const Type& type = match.type(reshaper.output());
  return type.shape ? concrete(*type.shape) : std::nullopt;
}

std::optional<std::string> fill_obstacle(const Match& match) {
  const Node* fill = match.root->input(0) ? match.root->input(0)->producer() : nullptr;
  if (!fill || !fill->is("ConstantOfShape") || is_unread(*match.root)) return "";
  if (has_open_attributes(*fill)) return "its attributes are parameters of the function";
  const Value& between = *fill->output();
  if (between.is_output()) return fmt::format("its input '{}' is a graph output", between.name());
  for (const Use& use : between.uses()) {
    const bool fits = is_reshaper(match, use.node) && use.index == 0 && use.node->output() &&
                      &use.node->graph() == &fill->graph();
    if (!fits)
      return fmt::format("its input '{}' has another reader: {}", between.name(),
                         use.node->describe());
    if (!filled_dims(match, *use.node))
      return fmt::format("the shape of '{}' is not known", use.node->output()->name());
  }
  return std::nullopt;
}

void reshape_fill(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  const Node& fill = *root.input(0)->producer();
  OpCall call{.op_type = "ConstantOfShape", .attributes = copy_attributes(fill)};
  const Dims dims = *filled_dims(match, root);
  call.constants.push_back(Tensor::of<std::int64_t>({std::ssize(dims)}, dims));
  patch.replace(root.output(), add_call(patch, root.graph(), std::move(call), {}, fill.name));
}

class MergeReshapes : public RulePass {
 public:
  static constexpr PassInfo pass_info{.name = "merge_reshapes",
                                      .summary =
                                          "merges Reshape, Flatten, Squeeze and Unsqueeze with one "
                                          "another and with reductions and Gathers before them",
                                      .effect = Effect::exact,
                                      .group = "simplify",
                                      .group_order = 30};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    Pattern reduction = Pattern::op(
        "ReduceSum|ReduceMean|ReduceMax|ReduceMin|ReduceProd|ReduceL1|ReduceL2|ReduceSumSquare|"
        "ReduceLogSum|ReduceLogSumExp",
        "reduction");
    return {
        {.name = "cancel_reshapes",
         .pattern = Pattern::op(reshapers, "last"),
         .when = cancel_obstacle,
         .replace = [](const Match& match,
                       Patch& patch) { patch.replace(match.root->output(), same_before(match)); }},
        {.name = "merge_into_reduction",
         .pattern = Pattern::op(reshapers, "last", {std::move(reduction)}),
         .when = reduction_obstacle,
         .replace = toggle_keepdims},
        {.name = "merge_into_gather",
         .pattern = Pattern::op("Squeeze|Unsqueeze", "last", {Pattern::op("Gather", "gather")}),
         .when = gather_obstacle,
         .replace = reshape_index},
        {.name = "reshape_fill",
         .pattern = Pattern::op(reshapers, "last"),
         .when = fill_obstacle,
         .replace = reshape_fill},
        {.name = "skip_reshape",
         .pattern = Pattern::op("Reshape", "last"),
         .when = skip_obstacle,
         .replace = skip},
        {.name = "join_squeezes",
         .pattern = Pattern::op("Squeeze|Unsqueeze", "last"),
         .when = join_obstacle,
         .replace = join},
        {.name = "merge_reshapes",
         .pattern = Pattern::op("Flatten|Squeeze|Unsqueeze|Transpose", "last"),
         .when = merge_obstacle,
         .replace = merge}};
  }
};

}  // namespace

PASS(merge_reshapes) { registry.add(std::make_unique<MergeReshapes>()); }

}  // namespace onnxpress
