// Merges operators that follow one another: Transpose, Cast, Concat, Split and Concat, Clip and
// Relu, Where behind Not.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "graph/ops/clip.h"
#include "graph/ops/concat_split.h"
#include "graph/ops/constant.h"
#include "graph/ops/identity.h"
#include "graph/ops/transpose.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

using Axes = std::vector<std::int64_t>;

// The node that makes the root's input `index`, if it is one of `op_types` in the same graph, or
// nullptr.
Node* before(const Match& match, std::initializer_list<std::string_view> op_types,
             std::size_t index = 0) {
  Node* node = match.root->input(index) ? match.root->input(index)->producer() : nullptr;
  const bool fits =
      node && node->input(0) && &node->graph() == &match.root->graph() &&
      std::ranges::any_of(op_types, [&](std::string_view type) { return node->is(type); });
  return fits ? node : nullptr;
}

std::optional<std::string> common_obstacle(const Match& match, const Node& inner) {
  if (!match.root->output() || match.root->output()->is_unused()) return "";
  if (has_open_attributes(*match.root) || has_open_attributes(inner))
    return "its attributes are parameters of the function";
  return std::nullopt;
}

std::string other_reader(const Node& inner) {
  return fmt::format("its input '{}' has another reader", inner.output()->name());
}

// Nothing but the root reads the result of `inner`.
bool only_root_reads(const Match& match, const Node& inner) {
  return !inner.output()->is_output() &&
         std::ranges::all_of(inner.output()->uses(),
                             [&](const Use& use) { return use.node == match.root; });
}

// --- Transpose behind Transpose ---

// Both at once, or nothing when the rank is not known.
std::optional<Axes> composed(const Match& match, const Node& inner) {
  const Type& type = match.type(inner.input(0));
  if (!type.shape) return std::nullopt;
  const Axes first = transpose_permutation(inner, type.shape->size());
  Axes both;
  for (const std::int64_t axis : transpose_permutation(*match.root, type.shape->size()))
    both.push_back(first[static_cast<std::size_t>(axis)]);
  return both;
}

std::optional<std::string> transpose_obstacle(const Match& match) {
  const Node* inner = before(match, {"Transpose"});
  if (!inner) return "";
  if (auto obstacle = common_obstacle(match, *inner)) return obstacle;
  const auto permutation = composed(match, *inner);
  if (!permutation) return "the rank is not known";
  if (std::ranges::is_sorted(*permutation) &&
      !handing_on_obstacle(*match.root->output(), *inner->input(0)))
    return std::nullopt;
  // Else the composed permutation may take more bytes than the root's, for nothing.
  const bool goes = !inner->output()->is_output() &&
                    std::ranges::all_of(inner->output()->uses(), [&](const Use& use) {
                      return use.node->is("Transpose") && &use.node->graph() == &inner->graph();
                    });
  return goes ? std::nullopt : std::optional(other_reader(*inner));
}

void merge_transposes(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  Node* inner = before(match, {"Transpose"});
  Axes permutation = *composed(match, *inner);
  // Where the input cannot take an output's name, this leaves an Identity.
  if (std::ranges::is_sorted(permutation)) return patch.replace(root.output(), inner->input(0));
  patch.replace(root.output(), add_call(patch, root.graph(), make_transpose(std::move(permutation)),
                                        {inner->input(0)}, root.name));
}

// --- Cast behind Cast ---

// Significant bits and exponent range of a float type, and the widest power of two.
struct FloatForm {
  int digits, smallest, largest;
};
std::optional<FloatForm> float_form(DType type) {
  switch (type) {
    case DType::float16:
      return FloatForm{11, -24, 15};
    case DType::bfloat16:
      return FloatForm{8, -133, 127};
    case DType::float32:
      return FloatForm{24, -149, 127};
    case DType::float64:
      return FloatForm{53, -1074, 1023};
    default:
      return std::nullopt;
  }
}

int integer_digits(DType type) {
  return type == DType::boolean ? 1 : bits(type) - is_signed_integer(type);
}

// Every value of `from` is one of `to`.
bool is_widening(DType from, DType to) {
  const bool from_integer = is_integer(from) || from == DType::boolean;
  if (from == to) return true;
  if (from_integer && is_integer(to))
    return integer_digits(from) <= integer_digits(to) &&
           (!is_signed_integer(from) || is_signed_integer(to));
  const auto target = float_form(to);
  if (!target) return false;
  if (from_integer)
    return integer_digits(from) <= target->digits && integer_digits(from) <= target->largest;
  const auto source = float_form(from);
  return source && source->digits <= target->digits && source->smallest >= target->smallest &&
         source->largest <= target->largest;
}

std::optional<std::string> cast_obstacle(const Match& match) {
  const Node* inner = before(match, {"Cast"});
  if (!inner) return "";
  if (auto obstacle = common_obstacle(match, *inner)) return obstacle;
  const DType from = match.type(inner->input(0)).elem;
  const DType through = cast_target(*inner);
  const DType to = cast_target(*match.root);
  if (from == DType::undefined) return "the element type of its input is not known";
  if (!is_widening(from, through)) return fmt::format("{} loses of {}", name(through), name(from));
  // Floats become integers in another way than integers do.
  const bool between_kinds =
      is_float(through) && !is_float(from) && is_integer(to) && !is_widening(from, to);
  if (between_kinds || to == DType::string)
    return fmt::format("{} becomes {} in another way than {} does", name(through), name(to),
                       name(from));
  return std::nullopt;
}

void skip_cast(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  Node* inner = before(match, {"Cast"});
  patch.replace(root.output(), patch.node({.op_type = "Cast",
                                           .name = root.name,
                                           .inputs = {inner->input(0)},
                                           .attributes = copy_attributes(root)}));
}

// --- Concat ---

// The first input that is a Concat along the same axis and that only the root reads.
std::optional<std::size_t> nested_concat(const Match& match, std::string* reason = nullptr) {
  const Node& root = *match.root;
  for (std::size_t i = 0; i < root.input_count(); ++i) {
    const Node* inner = before(match, {"Concat"}, i);
    if (!inner || has_open_attributes(*inner)) continue;
    std::int64_t outer_axis = concat_axis(root), inner_axis = concat_axis(*inner);
    if (const Type& type = match.type(inner->output()); type.shape) {
      outer_axis = normalize_axis(outer_axis, type.shape->size());
      inner_axis = normalize_axis(inner_axis, type.shape->size());
    }
    if (outer_axis == inner_axis && only_root_reads(match, *inner)) return i;
    if (reason)
      *reason =
          outer_axis != inner_axis
              ? fmt::format("its input '{}' is joined along another axis", inner->output()->name())
              : other_reader(*inner);
  }
  return std::nullopt;
}

std::optional<std::string> concat_obstacle(const Match& match) {
  if (has_open_attributes(*match.root)) return "its attributes are parameters of the function";
  std::string reason;
  return nested_concat(match, &reason) ? std::nullopt : std::optional(std::move(reason));
}

void merge_concats(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  const Node* inner = root.input(*nested_concat(match))->producer();
  std::vector<Patch::Ref> parts;
  for (Value* part : root.inputs()) {
    if (part == inner->output())
      parts.insert(parts.end(), inner->inputs().begin(), inner->inputs().end());
    else
      parts.emplace_back(part);
  }
  patch.replace(root.output(), add_call(patch, root.graph(), make_concat(concat_axis(root)),
                                        std::move(parts), root.name));
}

// A Concat of all parts of a Split in their order.
std::optional<std::string> split_concat_obstacle(const Match& match) {
  const Node& root = *match.root;
  const Node* split = before(match, {"Split"});
  if (!split) return "";
  if (auto obstacle = common_obstacle(match, *split)) return obstacle;
  if (root.input_count() != split->output_count()) return "it does not join all parts";
  for (std::size_t i = 0; i < root.input_count(); ++i)
    if (root.input(i) != split->output(i)) return "it joins parts in another order";
  std::int64_t joined = concat_axis(root), cut = SplitAttrs::from(*split).axis;
  if (const Type& type = match.type(split->input(0)); type.shape) {
    joined = normalize_axis(joined, type.shape->size());
    cut = normalize_axis(cut, type.shape->size());
  }
  if (joined != cut) return "it joins along another axis";
  return handing_on_obstacle(*root.output(), *split->input(0));
}

// A Split into the parts that a Concat has joined.
std::optional<std::string> concat_split_obstacle(const Match& match) {
  const Node& root = *match.root;
  const Node* concat = before(match, {"Concat"});
  if (!concat) return "";
  if (has_open_attributes(root) || has_open_attributes(*concat))
    return "its attributes are parameters of the function";
  if (root.output_count() != concat->input_count()) return "it does not cut out all parts";
  const SplitAttrs attrs = SplitAttrs::from(root);
  const Type& type = match.type(root.input(0));
  if (!type.shape || !attrs.sizes) return "its sizes or the rank of its input are not known";
  const std::size_t rank = type.shape->size();
  const std::int64_t axis = normalize_axis(attrs.axis, rank);
  if (normalize_axis(concat_axis(*concat), rank) != axis) return "it cuts along another axis";
  Dims sizes = *attrs.sizes;
  const Dim& whole = (*type.shape)[static_cast<std::size_t>(axis)];
  if (sizes.empty() && whole.is_known())
    sizes = equal_parts(whole.value(), root.output_count(), false);
  for (std::size_t i = 0; i < root.output_count(); ++i) {
    const Type& part = match.type(concat->input(i));
    if (i >= sizes.size() || !part.shape ||
        (*part.shape)[static_cast<std::size_t>(axis)].value() != sizes[i])
      return fmt::format("part {} is not known to be of the size of its output", i);
    if (!root.output(i)) continue;
    if (auto obstacle = handing_on_obstacle(*root.output(i), *concat->input(i))) return obstacle;
    // A part that is there twice can take one output's name only.
    for (std::size_t k = 0; k < i; ++k)
      if (concat->input(k) == concat->input(i))
        return fmt::format("parts {} and {} are one value", k, i);
  }
  return std::nullopt;
}

// --- Clip and Relu ---

constexpr double infinity = std::numeric_limits<double>::infinity();

std::optional<ClipBounds> bounds_of(const Node& node) {
  return node.is("Relu") ? std::optional(ClipBounds{0, infinity}) : ClipBounds::from(node);
}

bool same_bounds(const ClipBounds& a, const ClipBounds& b) {
  return a.low == b.low && a.high == b.high;
}

struct ClipPair {
  ClipBounds first, second, both;
};

// What two operators in a row clip to; a reason where that is not known.
std::optional<ClipPair> clip_pair(const Match& match, const Node& inner, std::string& reason) {
  const auto first = bounds_of(inner);
  const auto second = bounds_of(*match.root);
  reason = "a bound is not a constant";
  if (!first || !second) return std::nullopt;
  reason = "a lower bound is above the upper one";
  if (!(first->low <= first->high) || !(second->low <= second->high)) return std::nullopt;
  const DType type = match.type(match.root->output()).elem;
  const auto is_exact = [&](double bound) {
    return std::isinf(bound) ||
           Tensor::scalar(bound).cast(type).cast(DType::float64).data<double>()[0] == bound;
  };
  reason = fmt::format("bounds of {} are not compared here", name(type));
  if (type == DType::undefined || (bits(type) > 32 && type != DType::float64)) return std::nullopt;
  for (const double bound : {first->low, first->high, second->low, second->high})
    if (!is_exact(bound)) return std::nullopt;
  const auto clipped = [&](double value) {
    return std::min(std::max(value, second->low), second->high);
  };
  const ClipBounds both{clipped(first->low), clipped(first->high)};
  return ClipPair{*first, *second, both};
}

std::optional<std::string> clip_obstacle(const Match& match) {
  const Node* inner = before(match, {"Clip", "Relu"});
  if (!inner) return "";
  if (auto obstacle = common_obstacle(match, *inner)) return obstacle;
  std::string reason;
  const auto pair = clip_pair(match, *inner, reason);
  if (!pair) return reason;
  if (same_bounds(pair->both, pair->first))
    return handing_on_obstacle(*match.root->output(), *inner->output());
  if (same_bounds(pair->both, pair->second)) return std::nullopt;
  return only_root_reads(match, *inner) ? std::nullopt : std::optional(other_reader(*inner));
}

void merge_clips(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  Node* inner = before(match, {"Clip", "Relu"});
  std::string reason;
  const ClipPair pair = *clip_pair(match, *inner, reason);
  if (same_bounds(pair.both, pair.first)) return patch.replace(root.output(), inner->output());
  if (same_bounds(pair.both, pair.second)) {
    patch.replace_input(match.root, 0, inner->input(0));
    return patch.remove_if_unread(inner);
  }
  OpCall call =
      make_clip(root.opset(), match.type(root.output()).elem, pair.both.low, pair.both.high);
  patch.replace(root.output(),
                add_call(patch, root.graph(), std::move(call), {inner->input(0)}, root.name));
}

// --- Where behind Not ---

std::optional<std::string> where_obstacle(const Match& match) {
  const Node* inner = before(match, {"Not"});
  if (!inner || is_unread(*match.root)) return "";
  return only_root_reads(match, *inner) ? std::nullopt : std::optional(other_reader(*inner));
}

void swap_branches(const Match& match, Patch& patch) {
  Node* root = match.root;
  Node* inner = before(match, {"Not"});
  patch.replace_input(root, 0, inner->input(0));
  patch.replace_input(root, 1, root->input(2));
  patch.replace_input(root, 2, root->input(1));
  patch.remove_if_unread(inner);
}

class MergeChains : public RulePass {
 public:
  static constexpr PassInfo pass_info{.name = "merge_chains",
                                      .summary =
                                          "merges operators in a row: Transpose, Cast, Concat, "
                                          "Split and Concat, Clip and Relu, Not and Where",
                                      .effect = Effect::exact,
                                      .group = "simplify",
                                      .group_order = 32};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "merge_transposes",
             .pattern = Pattern::op("Transpose", "last"),
             .when = transpose_obstacle,
             .replace = merge_transposes},
            {.name = "skip_cast",
             .pattern = Pattern::op("Cast", "last"),
             .when = cast_obstacle,
             .replace = skip_cast},
            {.name = "join_split",
             .pattern = Pattern::op("Concat", "last"),
             .when = split_concat_obstacle,
             .replace =
                 [](const Match& match, Patch& patch) {
                   patch.replace(match.root->output(), before(match, {"Split"})->input(0));
                 }},
            {.name = "merge_concats",
             .pattern = Pattern::op("Concat", "last"),
             .when = concat_obstacle,
             .replace = merge_concats},
            {.name = "split_concat",
             .pattern = Pattern::op("Split", "last"),
             .when = concat_split_obstacle,
             .replace =
                 [](const Match& match, Patch& patch) {
                   const Node* concat = before(match, {"Concat"});
                   for (std::size_t i = 0; i < match.root->output_count(); ++i)
                     if (Value* part = match.root->output(i)) patch.replace(part, concat->input(i));
                 }},
            {.name = "merge_clips",
             .pattern = Pattern::op("Clip|Relu", "last"),
             .when = clip_obstacle,
             .replace = merge_clips},
            {.name = "swap_where_branches",
             .pattern = Pattern::op("Where", "last"),
             .when = where_obstacle,
             .replace = swap_branches}};
  }
};

}  // namespace

PASS(merge_chains) { registry.add(std::make_unique<MergeChains>()); }

}  // namespace onnxpress
