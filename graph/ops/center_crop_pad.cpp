// CenterCropPad.
#include <algorithm>
#include <numeric>

#include "graph/ops/attributes.h"
#include "graph/ops/pad.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

std::vector<std::int64_t> axes_of(const Node& node, std::size_t rank, std::size_t sizes) {
  std::vector<std::int64_t> axes;
  if (const auto given = find_ints(node, "axes")) {
    normalize_axes(*given, rank);
    for (const std::int64_t axis : *given) axes.push_back(normalize_axis(axis, rank));
  } else {
    axes.resize(rank);
    std::iota(axes.begin(), axes.end(), std::int64_t{0});
  }
  require(axes.size() == sizes, "expected {} sizes, found {}", axes.size(), sizes);
  return axes;
}

Kernel prepare_center_crop_pad(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const std::vector<std::int64_t> sizes = context.required_input(1).to_ints();
    const auto axes = axes_of(node, x.rank(), sizes.size());
    std::vector<std::int64_t> pads(2 * x.rank(), 0);
    for (std::size_t i = 0; i < axes.size(); ++i) {
      require(sizes[i] >= 0, "expected sizes that are not negative, found {}", to_string(sizes));
      const auto axis = static_cast<std::size_t>(axes[i]);
      const std::int64_t added = sizes[i] - x.dim(axis);  // of an odd number, more at the end
      pads[axis] = added / 2;
      pads[x.rank() + axis] = added - added / 2;
    }
    pad_with_zeros(context, pads);
  };
}

void infer_center_crop_pad(InferContext& context) {
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  Shape shape = *x;
  if (const auto sizes = context.input_symbolic(1)) {
    const auto axes = axes_of(context.node(), x->size(), sizes->size());
    for (std::size_t i = 0; i < axes.size(); ++i)
      shape[static_cast<std::size_t>(axes[i])] = (*sizes)[i];
  } else {
    const auto given = find_ints(context.node(), "axes");
    const auto axes = axes_of(context.node(), x->size(), given ? given->size() : x->size());
    for (const std::int64_t axis : axes) shape[static_cast<std::size_t>(axis)] = Dim();
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

// Axes that are not listed stay.
OperandAxes center_crop_pad_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* x = node.input(0);
  const auto given = find_ints(node, "axes");
  if (x == nullptr || !x->type.shape || !given) return roles;
  const std::size_t rank = x->type.shape->size();
  for (std::size_t i = 0; i < rank; ++i)
    roles[0].push_back(
        {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)});
  for (const std::int64_t axis : normalize_axes(*given, rank))
    roles[0][static_cast<std::size_t>(axis)] = {};
  return roles;
}

}  // namespace

OPERATORS(center_crop_pad) {
  registry.add(OpDef{.name = "CenterCropPad",
                     .since = 18,
                     .infer = infer_center_crop_pad,
                     .prepare = prepare_center_crop_pad,
                     .axes = center_crop_pad_axes});
}

}  // namespace onnxpress
