// Slices and Splits of a Concat along its axis read its parts.
#include <algorithm>
#include <numeric>
#include <set>

#include "graph/ops/concat_split.h"
#include "graph/ops/slice.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

// A Concat of parts whose sizes along its axis are known.
struct Parts {
  const Node* concat = nullptr;
  std::int64_t axis = 0;  // not negative
  std::vector<std::int64_t> sizes;

  std::int64_t size() const { return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}); }
};

// Elements along the axis, all of one part.
struct Range {
  std::size_t part;
  std::int64_t first, count;  // within the part

  bool is_whole(const Parts& parts) const { return count == parts.sizes[part]; }
};

std::optional<Parts> parts_before(const TypeInference& types, const Node& reader) {
  const Value* joined = reader.input_count() > 0 ? reader.input(0) : nullptr;
  const Node* concat = joined ? joined->producer() : nullptr;
  if (!concat || !concat->is("Concat") || has_open_attributes(*concat)) return std::nullopt;
  const Type& type = types.type(joined);
  if (!type.shape) return std::nullopt;
  Parts parts{concat, normalize_axis(concat_axis(*concat), type.shape->size()), {}};
  for (const Value* part : concat->inputs()) {
    const Type& own = types.type(part);
    const bool fits = own.shape && own.shape->size() == type.shape->size();
    const Dim dim = fits ? (*own.shape)[static_cast<std::size_t>(parts.axis)] : Dim();
    if (!dim.is_known()) return std::nullopt;
    parts.sizes.push_back(dim.value());
  }
  return parts;
}

std::optional<Range> range_of(const Parts& parts, std::int64_t first, std::int64_t count) {
  if (count == 0) return std::nullopt;
  for (std::size_t i = 0; i < parts.sizes.size(); ++i) {
    if (first < parts.sizes[i])
      return first + count <= parts.sizes[i] ? std::optional(Range{i, first, count}) : std::nullopt;
    first -= parts.sizes[i];
  }
  return std::nullopt;
}

// What a Slice takes, where that is of the axis alone and of one part.
std::optional<Range> sliced(const Parts& parts, const Node& slice, std::size_t rank) {
  const auto attrs = SliceAttrs::from(slice);
  if (!attrs || has_open_attributes(slice)) return std::nullopt;
  std::optional<Range> found;
  for (std::size_t i = 0; i < attrs->axes.size(); ++i) {
    if (normalize_axis(attrs->axes[i], rank) != parts.axis) {
      if (!attrs->takes_all(i)) return std::nullopt;
      continue;
    }
    const SliceAttrs::Range range = attrs->range(i, parts.size());
    if (range.step != 1 && range.count > 1) return std::nullopt;
    found = range_of(parts, range.first, range.count);
  }
  return found;
}

// --- Slice --------------------------------------------------------------------------------------

std::optional<Range> sliced(const Match& match, const Node& slice) {
  const auto parts = parts_before(match.types(), slice);
  return parts ? sliced(*parts, slice, match.type(slice.input(0)).shape->size()) : std::nullopt;
}

std::optional<std::string> slice_obstacle(const Match& match) {
  const Node& slice = *match.root;
  const auto parts = parts_before(match.types(), slice);
  if (!parts || is_unread(slice)) return "";
  const auto range = sliced(match, slice);
  if (!range) return fmt::format("it does not take elements of one part of {}", parts->concat->describe());
  if (range->is_whole(*parts))
    return handing_on_obstacle(*slice.output(), *parts->concat->input(range->part));
  // A Slice of a part in its place is worth it where the Concat goes.
  const Value& joined = *slice.input(0);
  if (joined.is_output()) return fmt::format("its input '{}' is a graph output", joined.name());
  for (const Use& use : joined.uses())
    if (!use.node->is("Slice") || use.index != 0 || !sliced(match, *use.node))
      return fmt::format("it takes a piece of a part of {}, which {} reads as well",
                         parts->concat->describe(), use.node->describe());
  return std::nullopt;
}

void take_slice(const Match& match, Patch& patch) {
  const Node& slice = *match.root;
  const Parts parts = *parts_before(match.types(), slice);
  const Range range = *sliced(match, slice);
  Value* part = parts.concat->input(range.part);
  if (range.is_whole(parts)) return patch.replace(slice.output(), part);
  const SliceAttrs attrs{.starts = {range.first},
                         .ends = {range.first + range.count},
                         .axes = {parts.axis},
                         .steps = {1}};
  patch.replace(slice.output(), add_call(patch, slice.graph(), make_slice(slice.opset(), attrs), {part},
                                         slice.name));
}

// --- Split --------------------------------------------------------------------------------------

// The part that each output of the Split is, where all that are read are parts.
std::optional<std::vector<std::pair<Value*, Value*>>> split_parts(const Match& match) {
  const Node& split = *match.root;
  const auto parts = parts_before(match.types(), split);
  const SplitAttrs attrs = SplitAttrs::from(split);
  if (!parts || has_open_attributes(split) || !attrs.sizes) return std::nullopt;
  if (normalize_axis(attrs.axis, match.type(split.input(0)).shape->size()) != parts->axis)
    return std::nullopt;
  const std::vector<std::int64_t> sizes =
      attrs.sizes->empty() ? equal_parts(parts->size(), split.output_count(), false) : *attrs.sizes;
  if (sizes.size() != split.output_count()) return std::nullopt;
  std::vector<std::pair<Value*, Value*>> pairs;
  std::int64_t first = 0;
  for (std::size_t i = 0; i < sizes.size(); first += sizes[i], ++i) {
    Value* output = split.output(i);
    if (!output || output->is_unused()) continue;
    const auto range = range_of(*parts, first, sizes[i]);
    if (!range || !range->is_whole(*parts)) return std::nullopt;
    pairs.emplace_back(output, parts->concat->input(range->part));
  }
  return pairs;
}

std::optional<std::string> split_obstacle(const Match& match) {
  const Node& split = *match.root;
  const auto parts = parts_before(match.types(), split);
  if (!parts || is_unread(split)) return "";
  const auto pairs = split_parts(match);
  if (!pairs) return fmt::format("its outputs are not the parts of {}", parts->concat->describe());
  std::set<const Value*> handed_on;
  for (const auto& [output, part] : *pairs) {
    if (auto obstacle = handing_on_obstacle(*output, *part)) return obstacle;
    if (output->is_output() && !handed_on.insert(part).second)
      return fmt::format("'{}' would be two graph outputs", part->name());
  }
  return std::nullopt;
}

void take_split(const Match& match, Patch& patch) {
  const auto pairs = split_parts(match);
  for (const auto& [output, part] : *pairs) patch.replace(output, part);
}

class TakeConcatParts : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "take_concat_parts",
      .summary = "lets Slices and Splits of a Concat read the parts that they take apart again",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 35};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "slice_of_concat",
             .pattern = Pattern::op("Slice", "slice"),
             .when = slice_obstacle,
             .replace = take_slice},
            {.name = "split_of_concat",
             .pattern = Pattern::op("Split", "split"),
             .when = split_obstacle,
             .replace = take_split}};
  }
};

}  // namespace

PASS(take_concat_parts) { registry.add(std::make_unique<TakeConcatParts>()); }

}  // namespace onnxpress
