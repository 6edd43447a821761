#include "graph/ops/reshape_segments.h"

#include <algorithm>

namespace onnxpress {

std::optional<std::vector<ReshapeSegment>> reshape_segments(const Shape& in, const Shape& out) {
  std::vector<ReshapeSegment> segments;
  const auto is_one = [](const Dim& dim) { return dim == Dim(1); };
  std::size_t i = 0, o = 0;
  while (i < in.size() || o < out.size()) {
    const auto input = static_cast<std::int64_t>(i), output = static_cast<std::int64_t>(o);
    if (i < in.size() && o < out.size() && same_dim(in[i], out[o])) {
      segments.push_back({{input}, {output}});
      ++i, ++o;
    } else if (i < in.size() && is_one(in[i])) {
      segments.push_back({{input}, {}});
      ++i;
    } else if (o < out.size() && is_one(out[o])) {
      segments.push_back({{}, {output}});
      ++o;
    } else if (i < in.size() && o < out.size() && in[i].is_known() && out[o].is_known()) {
      ReshapeSegment segment{{input}, {output}};
      std::int64_t left = in[i++].value(), right = out[o++].value();
      while (left != right) {
        const bool grow_left = left < right;
        const Shape& dims = grow_left ? in : out;
        std::size_t& at = grow_left ? i : o;
        if (left == 0 || right == 0 || at == dims.size() || !dims[at].is_known())
          return std::nullopt;
        std::int64_t& product = grow_left ? left : right;
        if (__builtin_mul_overflow(product, dims[at].value(), &product)) return std::nullopt;
        (grow_left ? segment.inputs : segment.outputs).push_back(static_cast<std::int64_t>(at++));
      }
      segments.push_back(std::move(segment));
    } else {
      return std::nullopt;
    }
  }
  return segments;
}

std::optional<std::vector<std::size_t>> segment_order(
    const std::vector<ReshapeSegment>& segments, SegmentAxes side,
    const std::vector<std::int64_t>& permutation) {
  std::vector<std::size_t> order;
  const auto is_empty = [&](std::size_t index) { return (segments[index].*side).empty(); };
  for (std::size_t at = 0; at < permutation.size();) {
    const auto found = std::ranges::find_if(segments, [&](const ReshapeSegment& segment) {
      return !(segment.*side).empty() && (segment.*side).front() == permutation[at];
    });
    if (found == segments.end()) return std::nullopt;
    for (const std::int64_t axis : (*found).*side)
      if (at == permutation.size() || permutation[at++] != axis) return std::nullopt;
    const auto index = static_cast<std::size_t>(found - segments.begin());
    std::size_t first = index;
    while (first > 0 && is_empty(first - 1)) --first;
    for (; first <= index; ++first) order.push_back(first);
  }
  std::size_t last = segments.size();
  while (last > 0 && is_empty(last - 1)) --last;
  for (; last < segments.size(); ++last) order.push_back(last);
  return order;
}

std::vector<std::int64_t> axes_in_order(const std::vector<ReshapeSegment>& segments,
                                        SegmentAxes side, const std::vector<std::size_t>& order) {
  std::vector<std::int64_t> axes;
  for (const std::size_t index : order)
    axes.insert(axes.end(), (segments[index].*side).begin(), (segments[index].*side).end());
  return axes;
}

}  // namespace onnxpress
