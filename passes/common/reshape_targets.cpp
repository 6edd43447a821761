#include "passes/common/reshape_targets.h"

#include <utility>

#include "graph/ops/infer.h"
#include "graph/ops/reshape.h"

namespace onnxpress {
namespace {

// Elements from one element of the axis to the next; nothing where a dim is not known.
std::optional<std::int64_t> step(const Shape& shape, std::size_t axis) {
  std::int64_t product = 1;
  for (std::size_t i = axis + 1; i < shape.size(); ++i) {
    if (!shape[i].is_known()) return std::nullopt;
    product *= shape[i].value();
  }
  return product;
}

// A target for the result's type; nothing where more than one dim would have to be inferred.
std::optional<Dims> target_of_types(const Node& node) {
  const auto &in = node.input(0)->type.shape, &out = node.output()->type.shape;
  if (!in || !out || reshape_allows_zero(node)) return std::nullopt;
  Dims target;
  int inferred = 0;
  for (std::size_t i = 0; i < out->size(); ++i) {
    const Dim& dim = (*out)[i];
    if (dim.is_known())
      target.push_back(dim.value());
    else if (i < in->size() && !dim.symbol().empty() && same_dim(dim, (*in)[i]))
      target.push_back(0);
    else if (inferred++ == 0)
      target.push_back(-1);
    else
      return std::nullopt;
  }
  return target;
}

}  // namespace

bool is_reshape(const Node& node) {
  return node.is("Reshape") || node.is("Flatten") || node.is("Squeeze") || node.is("Unsqueeze");
}

std::optional<ReshapedAxis> reshaped_axis(const Value& from, std::size_t axis, const Value& to) {
  const auto &in = from.type.shape, &out = to.type.shape;
  if (!in || !out) return std::nullopt;
  const std::optional<std::int64_t> in_step = step(*in, axis);
  if (!in_step || *in_step == 0 || !(*in)[axis].is_known()) return std::nullopt;
  const std::int64_t size = (*in)[axis].value();
  std::optional<ReshapedAxis> best;
  for (std::size_t b = 0; b < out->size(); ++b) {
    const std::optional<std::int64_t> out_step = step(*out, b);
    if (!out_step || *out_step == 0 || !(*out)[b].is_known()) continue;
    const std::int64_t other = (*out)[b].value();
    if (other * *out_step != size * *in_step || (other == 1 && size != 1)) continue;
    if (other == size) return ReshapedAxis{b, 1};
    if (*in_step % *out_step == 0)
      best = ReshapedAxis{b, *in_step / *out_step};
    else if (*out_step % *in_step == 0)
      best = ReshapedAxis{b, 0};
  }
  return best;
}

bool can_retarget(const Node& node) {
  if (!node.is("Reshape")) return true;
  const std::optional<ReshapeTarget> target = ReshapeTarget::from(node);
  return (target && !target->allow_zero) || target_of_types(node).has_value();
}

void retarget(Node& node, std::size_t changed) {
  if (!node.is("Reshape")) return;
  Graph& graph = node.graph();
  Dims dims;
  if (const std::optional<ReshapeTarget> target = ReshapeTarget::from(node)) {
    dims = target->dims;
    if (dims.at(changed) == -1) return;
    dims.at(changed) = (*node.output()->type.shape)[changed].value();
  } else {
    dims = target_of_types(node).value();
  }
  const Value* before = node.input(1);
  const auto count = static_cast<std::int64_t>(dims.size());
  Tensor target = Tensor::of<std::int64_t>({count}, dims);
  graph.set_node_input(&node, 1, graph.add_initializer(graph.unique_name(before->name()), std::move(target)));
}

}  // namespace onnxpress
