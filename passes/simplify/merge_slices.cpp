// Merges Slices that follow one another into one.
#include <algorithm>
#include <limits>

#include "graph/ops/slice.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

constexpr std::size_t most_readers = 4;  // that may take over a Slice they share

// Bounds along one axis.
struct Cut {
  std::int64_t start, end, step;
};

bool is_open(std::int64_t end) { return end >= std::numeric_limits<std::int32_t>::max(); }

// Of an axis of `size` elements.
Cut composed(const SliceAttrs& first, std::size_t i, const SliceAttrs& second, std::size_t k,
             std::int64_t size) {
  const SliceAttrs::Range before = first.range(i, size);
  const SliceAttrs::Range after = second.range(k, before.count);
  if (after.count == 0) return {0, 0, 1};
  const std::int64_t start = before.first + after.first * before.step;
  const std::int64_t step = after.count == 1 ? 1 : before.step * after.step;
  const std::int64_t last = start + (after.count - 1) * step;
  const std::int64_t end = last + (step > 0 ? 1 : -1);
  // An end of -1 would be counted from the back.
  return {start, end < 0 ? std::numeric_limits<std::int64_t>::min() : end, step};
}

// Of an axis of unknown size: only where nothing is counted from the back of what may be cut there.
std::optional<Cut> composed(const SliceAttrs& first, std::size_t i, const SliceAttrs& second,
                            std::size_t k) {
  const Cut a{first.starts[i], first.ends[i], first.steps[i]};
  const Cut b{second.starts[k], second.ends[k], second.steps[k]};
  if (a.step != 1 || b.step < 1 || a.start < 0 || b.start < 0) return std::nullopt;
  Cut both{0, 0, b.step};
  if (__builtin_add_overflow(a.start, b.start, &both.start)) return std::nullopt;
  if (is_open(b.end)) {
    both.end = a.end;
  } else if (b.end < 0) {
    if (!is_open(a.end)) return std::nullopt;
    both.end = b.end;
  } else {
    if (a.end < 0 || __builtin_add_overflow(a.start, b.end, &both.end)) return std::nullopt;
    both.end = std::min(both.end, a.end);
  }
  return both;
}

// The axes of a Slice as numbers that compare, or nothing.
std::optional<std::vector<std::int64_t>> plain_axes(const SliceAttrs& attrs, const Type& type) {
  std::vector<std::int64_t> axes = attrs.axes;
  for (std::int64_t& axis : axes) {
    if (type.shape) axis = normalize_axis(axis, type.shape->size());
    if (axis < 0) return std::nullopt;
  }
  return axes;
}

// The Slice in front of `outer`, or nullptr.
Node* slice_before(const Node& outer) {
  Node* inner = outer.input(0) ? outer.input(0)->producer() : nullptr;
  const bool fits = inner && inner->is("Slice") && inner->input(0) &&
                    &inner->graph() == &outer.graph() && outer.is("Slice");
  return fits ? inner : nullptr;
}

// Both Slices as one, or nothing where that is not known.
std::optional<SliceAttrs> merged(const TypeInference& types, const Node& outer) {
  const Node& inner = *slice_before(outer);
  if (has_open_attributes(outer) || has_open_attributes(inner)) return std::nullopt;
  const auto first = SliceAttrs::from(inner);
  const auto second = SliceAttrs::from(outer);
  const Type& type = types.type(inner.input(0));
  if (!first || !second) return std::nullopt;
  const auto first_axes = plain_axes(*first, type);
  const auto second_axes = plain_axes(*second, type);
  if (!first_axes || !second_axes) return std::nullopt;
  SliceAttrs both = *first;
  both.axes = *first_axes;
  for (std::size_t k = 0; k < second_axes->size(); ++k) {
    const auto same = std::ranges::find(*first_axes, (*second_axes)[k]);
    Cut cut{second->starts[k], second->ends[k], second->steps[k]};
    if (same == first_axes->end()) {
      both.axes.push_back((*second_axes)[k]);
      both.starts.push_back(cut.start);
      both.ends.push_back(cut.end);
      both.steps.push_back(cut.step);
      continue;
    }
    const auto i = static_cast<std::size_t>(same - first_axes->begin());
    const Dim dim = type.shape ? (*type.shape)[static_cast<std::size_t>(*same)] : Dim();
    if (dim.is_known()) {
      cut = composed(*first, i, *second, k, dim.value());
    } else if (const auto open = composed(*first, i, *second, k)) {
      cut = *open;
    } else {
      return std::nullopt;
    }
    both.starts[i] = cut.start;
    both.ends[i] = cut.end;
    both.steps[i] = cut.step;
  }
  return both;
}

std::optional<std::string> obstacle(const Match& match) {
  const Node* inner = slice_before(*match.root);
  if (!inner || match.root->output()->is_unused()) return "";
  const Value& between = *inner->output();
  // The one in front must go, or the file would grow.
  if (between.is_output()) return fmt::format("its input '{}' is a graph output", between.name());
  if (between.uses().size() > most_readers)
    return fmt::format("its input '{}' has more than {} readers", between.name(), most_readers);
  for (const Use& use : between.uses()) {
    if (slice_before(*use.node) != inner || use.index != 0)
      return fmt::format("its input '{}' has another reader: {}", between.name(),
                         use.node->describe());
    if (!merged(match.types(), *use.node))
      return fmt::format("the bounds of {} cannot be put together with those of {}",
                         use.node->describe(), inner->describe());
  }
  return std::nullopt;
}

void merge(const Match& match, Patch& patch) {
  const Node& root = *match.root;
  Node* inner = slice_before(root);
  OpCall call = make_slice(root.opset(), *merged(match.types(), root));
  patch.replace(root.output(),
                add_call(patch, root.graph(), std::move(call), {inner->input(0)}, root.name));
}

class MergeSlices : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "merge_slices",
      .summary = "merges Slices in a row, of the same or of different axes",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 34};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "merge_slices",
             .pattern = Pattern::op("Slice", "last"),
             .when = obstacle,
             .replace = merge}};
  }
};

}  // namespace

PASS(merge_slices) { registry.add(std::make_unique<MergeSlices>()); }

}  // namespace onnxpress
