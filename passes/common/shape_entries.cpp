#include "passes/common/shape_entries.h"

#include <algorithm>

#include "graph/ops/constant.h"
#include "graph/ops/gather.h"
#include "graph/ops/identity.h"
#include "graph/ops/shape_of.h"
#include "graph/ops/slice.h"
#include "passes/common/rewriting.h"

namespace onnxpress {
namespace {

using Entries = std::vector<ShapeEntry>;
constexpr int deepest_trace = 32;

class Tracer {
 public:
  explicit Tracer(const TypeInference& types) : types_(types) {}

  std::optional<Entries> trace(const Value* value, int depth) const {
    if (!value) return std::nullopt;
    if (const auto ints = constant_ints(value)) {
      Entries entries;
      for (const std::int64_t element : *ints)
        entries.push_back({.dim = element < 0 ? Dim() : Dim(element), .is_minus_one = element == -1});
      return entries;
    }
    const Node* node = value->producer();
    std::optional<Entries> entries;
    if (node && depth < deepest_trace && is_flat(value) && !has_open_attributes(*node)) entries = through(*node, depth);
    const auto contents = types_.symbolic(value);
    if (!contents) return entries;
    if (!entries) entries.emplace(contents->size());
    for (std::size_t i = 0; i < std::min(entries->size(), contents->size()); ++i)
      if ((*contents)[i].is_known() || (*contents)[i].is_symbol()) (*entries)[i].dim = (*contents)[i];
    return entries;
  }

 private:
  bool is_flat(const Value* value) const {
    const Type& type = types_.type(value);
    return type.shape && type.shape->size() <= 1;
  }

  std::optional<Entries> through(const Node& node, int depth) const {
    const Value* input = node.input(0);
    if (node.is("Shape")) return dims_of(node, input);
    if (node.is("Concat")) {
      Entries joined;
      for (const Value* part : node.inputs()) {
        const auto entries = trace(part, depth + 1);
        if (!entries) return std::nullopt;
        joined.insert(joined.end(), entries->begin(), entries->end());
      }
      return joined;
    }
    if (!input || !is_flat(input)) return std::nullopt;
    if (node.is("Squeeze") || node.is("Unsqueeze") || node.is("Identity") ||
        (node.is("Cast") && bits(cast_target(node)) >= 32 && is_integer(cast_target(node))))
      return trace(input, depth + 1);
    if (node.is("Gather")) return gathered(node, depth);
    return node.is("Slice") ? sliced(node, depth) : std::nullopt;
  }

  std::optional<Entries> dims_of(const Node& shape, const Value* of) const {
    const Type& type = types_.type(of);
    if (!type.shape) return std::nullopt;
    const ShapeBounds bounds = ShapeBounds::of(shape, type.shape->size());
    Entries entries;
    for (std::size_t axis = bounds.first; axis < bounds.last; ++axis)
      entries.push_back({.dim = (*type.shape)[axis], .of = of, .axis = axis});
    return entries;
  }

  std::optional<Entries> gathered(const Node& gather, int depth) const {
    const auto from = trace(gather.input(0), depth + 1);
    const auto indices = constant_ints(gather.input(1));
    if (!from || !indices) return std::nullopt;
    Entries entries;
    for (const std::int64_t index : *indices) {
      const std::int64_t at = checked_index(index, std::ssize(*from));
      entries.push_back((*from)[static_cast<std::size_t>(at)]);
    }
    return entries;
  }

  std::optional<Entries> sliced(const Node& slice, int depth) const {
    const auto from = trace(slice.input(0), depth + 1);
    const auto attrs = SliceAttrs::from(slice);
    if (!from || !attrs || attrs->axes.size() != 1) return std::nullopt;
    const SliceAttrs::Range range = attrs->range(0, std::ssize(*from));
    Entries entries;
    for (std::int64_t i = 0; i < range.count; ++i)
      entries.push_back((*from)[static_cast<std::size_t>(range.first + i * range.step)]);
    return entries;
  }

  const TypeInference& types_;
};

}  // namespace

std::optional<Entries> shape_entries(const TypeInference& types, const Value* value) {
  return Tracer(types).trace(value, 0);
}

}  // namespace onnxpress
