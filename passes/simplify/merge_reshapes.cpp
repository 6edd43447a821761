// Merges operators that only give the same elements other dims: Reshape, Flatten, Squeeze,
// Unsqueeze, one after another or behind an operator that can give the dims itself.
#include <algorithm>

#include "graph/ops/constant.h"
#include "graph/ops/reduce.h"
#include "graph/ops/reshape.h"
#include "passes/common/rewriting.h"
#include "passes/common/shape_entries.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

constexpr std::string_view reshapers = "Reshape|Flatten|Squeeze|Unsqueeze";
using Axes = std::vector<std::int64_t>;

bool is_reshaper(const Node* node) {
  return node && node->input(0) &&
         (node->is("Reshape") || node->is("Flatten") || node->is("Squeeze") || node->is("Unsqueeze"));
}

// The operator of that kind in front of a match's root, or nullptr.
Node* reshaper_before(const Match& match) {
  Node* inner = match.root->input(0) ? match.root->input(0)->producer() : nullptr;
  return is_reshaper(inner) && &inner->graph() == &match.root->graph() && match.root->output() ? inner : nullptr;
}

bool has_one_reader(const Node& node) { return node.output()->uses().size() == 1 && !node.output()->is_output(); }

// The first value of the chain in front of the root that has the type of its result already.
Value* same_before(const Match& match) {
  const Type& type = match.type(match.root->output());
  Value* found = nullptr;
  for (Node* node = reshaper_before(match); is_reshaper(node); node = node->input(0)->producer())
    if (same_type(match.type(node->input(0)), type)) found = node->input(0);
  return found;
}

// --- chains that end where they began ---

std::optional<std::string> cancel_obstacle(const Match& match) {
  if (!reshaper_before(match) || match.root->output()->is_unused()) return "";
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
  const auto copies_at = [&](std::size_t index) { return copies_alike(match, inner.input(0), root.input(0), index); };
  if (const auto fixed = ReshapeTarget::from(root)) {
    for (std::size_t i = 0; i < fixed->dims.size(); ++i)
      if (fixed->dims[i] == 0 && !fixed->allow_zero && !copies_at(i)) return false;
    return true;
  }
  const auto entries = shape_entries(match.types(), root.input(1));
  if (!entries) return false;
  for (std::size_t i = 0; i < entries->size(); ++i) {
    const ShapeEntry& entry = (*entries)[i];  // a symbol may turn out to be 0
    if (!entry.is_minus_one && entry.dim.value() <= 0 && !copies_at(i)) return false;
  }
  return true;
}

std::optional<std::string> skip_obstacle(const Match& match) {
  const Node* inner = reshaper_before(match);
  if (!inner) return "";
  if (has_open_attributes(*match.root)) return "its attributes are parameters of the function";
  if (means_the_same(match, *inner)) return std::nullopt;
  return fmt::format("its target may copy dims of '{}' that '{}' does not have", match.root->input(0)->name(),
                     inner->input(0)->name());
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
  if (!has_one_reader(*inner)) return fmt::format("its input '{}' has another reader", inner->output()->name());
  if (!joined_axes(match)) return "axes or ranks are not known";
  return std::nullopt;
}

void join(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  const std::int64_t opset = root.opset();
  Axes axes = *joined_axes(match);
  OpCall call = root.is("Squeeze") ? make_squeeze(opset, std::move(axes)) : make_unsqueeze(opset, std::move(axes));
  patch.replace(root.output(),
                add_call(patch, root.graph(), std::move(call), {reshaper_before(match)->input(0)}, root.name));
}

// --- any other pair ---

// Works out the entry that a target leaves to be inferred (-1) from what else it has of the dims of `x`.
void resolve_inferred(const Value* x, const Type& type, std::vector<ShapeEntry>& entries) {
  const auto open = std::ranges::find_if(entries, &ShapeEntry::is_minus_one);
  if (!type.shape || open == entries.end()) return;
  std::vector<bool> taken(type.shape->size());
  std::int64_t given = 1, left = 1;
  for (const ShapeEntry& entry : entries) {
    if (entry.is_minus_one) continue;
    bool found = false;
    for (std::size_t axis = 0; axis < taken.size() && !found; ++axis) {
      const Dim& dim = (*type.shape)[axis];
      found = !taken[axis] && !dim.is_known() &&
              ((entry.of == x && entry.axis == axis) || same_dim(dim, entry.dim));
      if (found) taken[axis] = true;
    }
    if (found) continue;
    if (entry.dim.value() <= 0 || __builtin_mul_overflow(given, entry.dim.value(), &given)) return;
  }
  for (std::size_t axis = 0; axis < taken.size(); ++axis) {
    if (taken[axis]) continue;
    const std::int64_t dim = (*type.shape)[axis].value();
    if (dim <= 0 || __builtin_mul_overflow(left, dim, &left)) return;
  }
  if (left % given == 0) open->dim = left / given;
}

// Dims for a Reshape of `x`: 0 where a dim that is not known stays at its place, at most one -1, and
// that only where no dim may be 0 (or one was inferred before).
std::optional<Dims> target_for(const Value* x, const Type& type, std::vector<ShapeEntry> entries) {
  resolve_inferred(x, type, entries);
  Dims target;
  std::size_t inferred = 0;
  bool may_be_empty = false;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const ShapeEntry& entry = entries[i];
    const bool in_place = type.shape && i < type.shape->size();
    if (entry.dim.value() > 0) {
      target.push_back(entry.dim.value());
    } else if (in_place && ((entry.of == x && entry.axis == i) || same_dim((*type.shape)[i], entry.dim))) {
      target.push_back(0);
      may_be_empty = true;
    } else {
      target.push_back(-1);
      ++inferred;
    }
  }
  const bool was_inferred = std::ranges::any_of(entries, &ShapeEntry::is_minus_one);
  if (inferred > 1 || (inferred == 1 && may_be_empty && !was_inferred)) return std::nullopt;
  return target;
}

std::optional<Dims> merged_target(const Match& match) {
  const Type& result = match.type(match.root->output());
  if (!result.shape) return std::nullopt;
  std::vector<ShapeEntry> entries;
  for (const Dim& dim : *result.shape) entries.push_back({.dim = dim});
  const Value* x = reshaper_before(match)->input(0);
  return target_for(x, match.type(x), std::move(entries));
}

std::optional<std::string> merge_obstacle(const Match& match) {
  const Node* inner = reshaper_before(match);
  if (!inner || match.root->output()->is_unused()) return "";
  if (!has_one_reader(*inner)) return fmt::format("its input '{}' has another reader", inner->output()->name());
  if (!merged_target(match))
    return fmt::format("its result is {}: not one dim to infer", to_string(match.type(match.root->output())));
  return std::nullopt;
}

void merge(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  patch.replace(root.output(), add_call(patch, root.graph(), make_reshape(root.opset(), *merged_target(match)),
                                        {reshaper_before(match)->input(0)}, root.name));
}

// --- a target that is computed ---

// Of a Reshape whose target is computed from dims of something, where these are numbers and dims of
// its input.
std::optional<Dims> computed_target(const TypeInference& types, const Node& reshape) {
  const Value* x = reshape.input(0);
  auto entries = shape_entries(types, reshape.input(1));
  return entries ? target_for(x, types.type(x), std::move(*entries)) : std::nullopt;
}

std::optional<std::string> computed_obstacle(const Match& match) {
  const Value* target = match.root->input(1);
  if (!target || !target->producer() || constant_ints(target)) return "";
  if (target->is_output()) return fmt::format("its target '{}' is a graph output", target->name());
  // Else the constant would come on top of the computation.
  for (const Use& use : target->uses()) {
    if (!use.node->is("Reshape") || use.index != 1 || has_open_attributes(*use.node))
      return fmt::format("its target '{}' has another reader: {}", target->name(), use.node->describe());
    if (!computed_target(match.types(), *use.node)) {
      const auto contents = match.types().symbolic(target);
      return fmt::format("the target '{}' of {} is {}: not dims of the input and one to infer", target->name(),
                         use.node->describe(), contents ? to_string(*contents) : "not known");
    }
  }
  return std::nullopt;
}

void fix_target(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  patch.replace(root.output(),
                add_call(patch, root.graph(), make_reshape(root.opset(), *computed_target(match.types(), root)),
                         {root.input(0)}, root.name));
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
    return Reduction{node, ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, type.shape->size()),
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
  const Shape wanted = reduced_dims(*type.shape, reduction->axes, !reduction->keepdims);
  const Type& result = match.type(root.output());
  if (result.shape && std::ranges::equal(wanted, *result.shape, same_dim)) return std::nullopt;
  return fmt::format("its result is {}, the reduction could give {}", to_string(result), to_string(wanted));
}

void toggle_keepdims(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  const Reduction reduction = *reduction_before(match);
  OpCall call = make_reduce(reduction.node->op_type(), root.opset(), reduction.axes, !reduction.keepdims);
  patch.replace(root.output(), add_call(patch, root.graph(), std::move(call), {reduction.node->input(0)},
                                        reduction.node->name));
}

class MergeReshapes : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "merge_reshapes",
      .summary = "merges Reshape, Flatten, Squeeze and Unsqueeze with one another, with reductions before them, and "
                 "with computations of a shape that is known",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 30};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    Pattern reduction =
        Pattern::op("ReduceSum|ReduceMean|ReduceMax|ReduceMin|ReduceProd|ReduceL1|ReduceL2|ReduceSumSquare|"
                    "ReduceLogSum|ReduceLogSumExp",
                    "reduction");
    return {{.name = "cancel_reshapes",
             .pattern = Pattern::op(reshapers, "last"),
             .when = cancel_obstacle,
             .replace = [](const Match& match, Patch& patch) {
               patch.replace(match.root->output(), same_before(match));
             }},
            {.name = "merge_into_reduction",
             .pattern = Pattern::op(reshapers, "last", {std::move(reduction)}),
             .when = reduction_obstacle,
             .replace = toggle_keepdims},
            {.name = "skip_reshape",
             .pattern = Pattern::op("Reshape", "last"),
             .when = skip_obstacle,
             .replace = skip},
            {.name = "join_squeezes",
             .pattern = Pattern::op("Squeeze|Unsqueeze", "last"),
             .when = join_obstacle,
             .replace = join},
            {.name = "merge_reshapes",
             .pattern = Pattern::op("Flatten|Squeeze|Unsqueeze", "last"),
             .when = merge_obstacle,
             .replace = merge},
            {.name = "fix_reshape_target",
             .pattern = Pattern::op("Reshape", "last"),
             .when = computed_obstacle,
             .replace = fix_target}};
  }
};

}  // namespace

PASS(merge_reshapes) { registry.add(std::make_unique<MergeReshapes>()); }

}  // namespace onnxpress
