#include "graph/ops/slice.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/constant.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using Ints = std::vector<std::int64_t>;

// Fills in default axes and steps; throws Error for lengths that differ and steps of 0.
SliceAttrs completed(Ints starts, Ints ends, std::optional<Ints> axes, std::optional<Ints> steps) {
  const std::size_t count = starts.size();
  SliceAttrs attrs{.starts = std::move(starts), .ends = std::move(ends)};
  attrs.axes = axes ? std::move(*axes) : Ints(count);
  if (!axes) std::iota(attrs.axes.begin(), attrs.axes.end(), std::int64_t{0});
  attrs.steps = steps ? std::move(*steps) : Ints(count, 1);
  require(attrs.ends.size() == count && attrs.axes.size() == count && attrs.steps.size() == count,
          "expected as many ends, axes and steps as starts ({}), found {}, {} and {}", count,
          attrs.ends.size(), attrs.axes.size(), attrs.steps.size());
  require(std::ranges::find(attrs.steps, 0) == attrs.steps.end(), "expected steps that are not 0");
  return attrs;
}

SliceAttrs from_attributes(const Node& node) {
  return completed(require_ints(node, "starts"), require_ints(node, "ends"),
                   find_ints(node, "axes"), std::nullopt);
}

// get(index) is the contents of an input, which may be omitted.
template <class Get>
SliceAttrs from_inputs(Get&& get) {
  auto starts = get(1);
  auto ends = get(2);
  require(starts && ends, "starts and ends are required");
  return completed(std::move(*starts), std::move(*ends), get(3), get(4));
}

Kernel prepare_slice(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const SliceAttrs attrs = SliceAttrs::of_call(node, [&](std::size_t index) { return inner.input(index); });
      StridedView view{.dims = x.dims(), .strides = row_strides(x.dims())};
      normalize_axes(attrs.axes, x.rank());
      for (std::size_t i = 0; i < attrs.axes.size(); ++i) {
        const auto axis = static_cast<std::size_t>(normalize_axis(attrs.axes[i], x.rank()));
        const SliceAttrs::Range range = attrs.range(i, x.dim(axis));
        view.dims[axis] = range.count;
        view.offset += range.count > 0 ? range.first * view.strides[axis] : 0;
        view.strides[axis] *= range.step;
      }
      put_view(inner, 0, x, view, view.dims);
    });
  };
}

void slice_contents(InferContext& context, const SliceAttrs& attrs) {
  const auto contents = context.input_symbolic(0);
  if (!contents || attrs.axes.size() != 1 || attrs.axes[0] > 0 || attrs.axes[0] < -1) return;
  const auto range = attrs.range(0, static_cast<std::int64_t>(contents->size()));
  Shape kept;
  for (std::int64_t i = 0; i < range.count; ++i)
    kept.push_back((*contents)[static_cast<std::size_t>(range.first + i * range.step)]);
  context.set_output_symbolic(0, std::move(kept));
}

// One axis kept up to a symbol: [0, n) of a dim that is assumed to have at least n elements.
std::optional<Shape> slice_to_symbol(InferContext& context, const Shape& x) {
  const auto starts = context.input_ints(1);
  const auto ends = context.input_symbolic(2);
  std::optional<Ints> axes = context.input_ints(3);
  std::optional<Ints> steps = context.input_ints(4);
  if (!context.has_input(3) && ends) {
    axes = Ints(ends->size());
    std::iota(axes->begin(), axes->end(), std::int64_t{0});
  }
  if (!context.has_input(4) && axes) steps = Ints(axes->size(), 1);
  if (!axes) return Shape(x.size());
  Shape shape = x;
  for (std::size_t i = 0; i < axes->size(); ++i) {
    Dim& dim = shape[static_cast<std::size_t>(normalize_axis((*axes)[i], x.size()))];
    const bool from_start = starts && steps && i < starts->size() && i < steps->size() &&
                            (*starts)[i] == 0 && (*steps)[i] == 1;
    dim = from_start && ends && i < ends->size() && (*ends)[i].is_symbol() ? (*ends)[i] : Dim();
  }
  return shape;
}

void infer_slice(InferContext& context) {
  const Node& node = context.node();
  const Shape* x = context.input_shape(0);
  std::optional<SliceAttrs> attrs;
  if (node.opset() < 10) {
    attrs = from_attributes(node);
  } else {
    bool known = true;
    for (std::size_t i = 1; i < 5; ++i)
      known = known && (!context.has_input(i) || context.input_value(i) != nullptr);
    if (known) attrs = from_inputs([&](std::size_t index) { return context.input_ints(index); });
  }
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  if (!attrs) return context.set_output(0, context.input_dtype(0), slice_to_symbol(context, *x));
  Shape shape = *x;
  normalize_axes(attrs->axes, x->size());
  for (std::size_t i = 0; i < attrs->axes.size(); ++i) {
    Dim& dim = shape[static_cast<std::size_t>(normalize_axis(attrs->axes[i], x->size()))];
    if (dim.is_known())
      dim = attrs->range(i, dim.value()).count;
    else if (!attrs->takes_all(i))
      dim = Dim();
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
  if (x->size() == 1) slice_contents(context, *attrs);
}

OperandAxes slice_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const auto attrs = SliceAttrs::from(node);
  const Value* x = node.input(0);
  if (!attrs || x == nullptr || !x->type.shape) return roles;
  const std::size_t rank = x->type.shape->size();
  for (std::size_t i = 0; i < rank; ++i)
    roles[0].push_back(
        {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)});
  for (std::size_t i = 0; i < attrs->axes.size(); ++i)
    if (!attrs->takes_all(i))
      roles[0][static_cast<std::size_t>(normalize_axis(attrs->axes[i], rank))] = {};
  return roles;
}

}  // namespace

std::optional<SliceAttrs> SliceAttrs::from(const Node& node) {
  if (node.opset() < 10) return from_attributes(node);
  for (std::size_t i = 1; i < 5; ++i)
    if (node.input(i) != nullptr && !constant_ints(node.input(i))) return std::nullopt;
  return from_inputs([&](std::size_t index) { return constant_ints(node.input(index)); });
}

SliceAttrs SliceAttrs::of_call(const Node& node, const std::function<const Tensor*(std::size_t)>& input) {
  if (node.opset() < 10) return from_attributes(node);
  return from_inputs([&](std::size_t index) -> std::optional<Ints> {
    const Tensor* tensor = input(index);
    return tensor != nullptr ? std::optional(tensor->to_ints()) : std::nullopt;
  });
}

// Clamping as the Slice specification has it.
SliceAttrs::Range SliceAttrs::range(std::size_t index, std::int64_t size) const {
  // A step over the whole axis takes one element, as any longer one does.
  const std::int64_t longest = std::max<std::int64_t>(size, 1);
  const std::int64_t step = std::clamp<std::int64_t>(steps[index], -longest, longest);
  // How many steps of `stride` stay before the end of `length` elements.
  const auto count = [](std::int64_t length, std::int64_t stride) -> std::int64_t {
    return length > 0 ? (length - 1) / stride + 1 : 0;
  };
  const auto wrapped = [&](std::int64_t at) { return at < 0 ? at + size : at; };
  if (step > 0) {
    const std::int64_t first = std::clamp<std::int64_t>(wrapped(starts[index]), 0, size);
    const std::int64_t last = std::clamp<std::int64_t>(wrapped(ends[index]), 0, size);
    return {first, step, count(last - first, step)};
  }
  const std::int64_t first =
      std::min<std::int64_t>(std::max<std::int64_t>(wrapped(starts[index]), 0), size - 1);
  const std::int64_t last =
      std::min<std::int64_t>(std::max<std::int64_t>(wrapped(ends[index]), -1), size - 1);
  return {first, step, count(first - last, -step)};
}

bool SliceAttrs::takes_all(std::size_t index) const {
  return starts[index] == 0 && steps[index] == 1 &&
         ends[index] >= std::numeric_limits<std::int32_t>::max();
}

OpCall make_slice(std::int64_t opset, const SliceAttrs& attrs) {
  OpCall call{.op_type = "Slice"};
  if (opset < 10) {
    require(std::ranges::all_of(attrs.steps, [](std::int64_t step) { return step == 1; }),
            "Slice with steps needs opset 10, the model has {}", opset);
    call.attributes["starts"] = attrs.starts;
    call.attributes["ends"] = attrs.ends;
    call.attributes["axes"] = attrs.axes;
    return call;
  }
  for (const Ints* part : {&attrs.starts, &attrs.ends, &attrs.axes, &attrs.steps})
    call.constants.push_back(
        Tensor::of<std::int64_t>({static_cast<std::int64_t>(part->size())}, *part));
  return call;
}

OPERATORS(slice) {
  registry.add(
      OpDef{.name = "Slice", .infer = infer_slice, .prepare = prepare_slice, .axes = slice_axes});
}

}  // namespace onnxpress
