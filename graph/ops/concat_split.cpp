#include "graph/ops/concat_split.h"

#include <algorithm>
#include <numeric>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/constant.h"
#include "graph/ops/movement.h"
#include "graph/ops/pieces.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_concat(const PrepareContext& prepare) {
  return [given = concat_axis(prepare.node())](KernelContext& context) {
    move(context, [&](KernelContext& inner) {
      const Tensor& first = inner.required_input(0);
      const auto axis = static_cast<std::size_t>(normalize_axis(given, first.rank()));
      std::vector<const Tensor*> parts;
      for (std::size_t i = 0; i < inner.input_count(); ++i)
        parts.push_back(&inner.required_input(i));
      const Dims dims = joined_dims(parts, axis);
      const std::int64_t outer = element_count(std::span(dims).first(axis));
      const std::int64_t row = element_count(std::span(dims).subspan(axis));
      ElementSink sink(inner, 0, first.dtype(), dims);
      std::int64_t start = 0;
      for (const Tensor* part : parts) {
        const std::int64_t width = element_count(std::span(part->dims()).subspan(axis));
        for (std::int64_t o = 0; o < outer; ++o) sink.put(o * row + start, *part, o * width, width);
        start += width;
      }
      sink.finish();
    });
  };
}

void infer_concat(InferContext& context) {
  const Node& node = context.node();
  DType type = DType::undefined;
  std::optional<Shape> contents = Shape{};
  std::vector<const Shape*> parts;
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    if (type == DType::undefined) type = context.input_dtype(i);
    const Shape* x = context.input_shape(i);
    parts.push_back(x);
    const auto part = context.input_symbolic(i);
    if (part && contents)
      contents->insert(contents->end(), part->begin(), part->end());
    else if (x && x->size() == 1 && (*x)[0].is_known() && contents)
      contents->resize(contents->size() + static_cast<std::size_t>((*x)[0].value()));
    else
      contents.reset();
  }
  std::optional<Shape> shape = concat_shape(parts, concat_axis(node));
  const bool flat = shape && shape->size() == 1;
  context.set_output(0, type, std::move(shape));
  if (flat && contents && is_integer(type)) context.set_output_symbolic(0, std::move(*contents));
}

OperandAxes concat_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    const Value* x = node.input(i);
    if (x != nullptr && x->type.shape) axes[i] = concat_roles(node, x->type.shape->size());
  }
  return axes;
}

// --- Split ---

std::vector<std::int64_t> split_sizes(const std::vector<std::int64_t>& given, std::int64_t size,
                                      const Node& node) {
  if (given.empty()) return equal_parts(size, node.output_count(), node.opset() < 18);
  require(given.size() == node.output_count(), "expected {} sizes, found {}", node.output_count(),
          to_string(given));
  const std::int64_t sum = std::accumulate(given.begin(), given.end(), std::int64_t{0});
  const bool negative =
      std::any_of(given.begin(), given.end(), [](std::int64_t part) { return part < 0; });
  require(sum == size && !negative, "expected sizes that add up to {}, found {}", size,
          to_string(given));
  return given;
}

Kernel prepare_split(const PrepareContext& prepare) {
  return [attrs = SplitAttrs::from(prepare.node()),
          &node = prepare.node()](KernelContext& context) {
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const auto axis = static_cast<std::size_t>(normalize_axis(attrs.axis, x.rank()));
      const Tensor* input = inner.input(1);
      const std::vector<std::int64_t> given =
          input != nullptr ? input->to_ints() : attrs.sizes.value_or(std::vector<std::int64_t>{});
      const auto sizes = split_sizes(given, x.dim(axis), node);
      StridedView view{.dims = x.dims(), .strides = row_strides(x.dims())};
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        view.dims[axis] = sizes[i];
        if (inner.wants_output(i)) put_view(inner, i, x, view, view.dims);
        view.offset += sizes[i] * view.strides[axis];
      }
    });
  };
}

void infer_split(InferContext& context) {
  const Node& node = context.node();
  SplitAttrs attrs = SplitAttrs::from(node);
  if (context.has_input(1)) attrs.sizes = context.input_ints(1);
  const Shape* x = context.input_shape(0);
  std::optional<std::vector<std::int64_t>> sizes = attrs.sizes;
  std::size_t axis = 0;
  if (x != nullptr) {
    axis = static_cast<std::size_t>(normalize_axis(attrs.axis, x->size()));
    const Dim& dim = (*x)[axis];
    if (sizes && dim.is_known()) sizes = split_sizes(*sizes, dim.value(), node);
  }
  for (std::size_t i = 0; i < node.output_count(); ++i) {
    std::optional<Shape> shape;
    if (x != nullptr) {
      shape = *x;
      (*shape)[axis] = sizes && i < sizes->size() ? Dim((*sizes)[i]) : Dim();
    }
    context.set_output(i, context.input_dtype(0), std::move(shape));
  }
}

}  // namespace

SplitAttrs SplitAttrs::from(const Node& node) {
  SplitAttrs attrs{.axis = get_int(node, "axis", 0), .sizes = get_ints(node, "split")};
  if (node.input(1) != nullptr) attrs.sizes = constant_ints(node.input(1));
  return attrs;
}

OpCall make_split(std::int64_t opset, std::int64_t axis, std::vector<std::int64_t> sizes) {
  OpCall call{.op_type = "Split"};
  call.attributes["axis"] = axis;
  if (opset >= 13)
    call.constants.push_back(Tensor::of<std::int64_t>({std::ssize(sizes)}, sizes));
  else
    call.attributes["split"] = std::move(sizes);
  return call;
}

std::vector<std::int64_t> equal_parts(std::int64_t size, std::size_t parts, bool must_be_even) {
  const auto count = static_cast<std::int64_t>(parts);
  require(count > 0, "expected at least one output, found none");
  require(!must_be_even || size % count == 0, "a dim of {} does not split into {} equal parts",
          size, count);
  const std::int64_t each = (size + count - 1) / count;
  std::vector<std::int64_t> sizes(parts, each);
  sizes.back() = size - each * (count - 1);
  require(sizes.back() >= 0, "a dim of {} does not split into {} parts", size, count);
  return sizes;
}

std::optional<Shape> concat_shape(std::span<const Shape* const> parts, std::int64_t axis) {
  std::optional<Shape> shape;
  std::vector<Dim> sizes;
  for (const Shape* x : parts) {
    if (x == nullptr) continue;
    if (!shape) {
      shape = *x;
      axis = normalize_axis(axis, x->size());
    }
    require(x->size() == shape->size(), "expected inputs of one rank, found {} and {}",
            to_string(*shape), to_string(*x));
    for (std::size_t k = 0; k < x->size(); ++k) {
      if (static_cast<std::int64_t>(k) != axis)
        (*shape)[k] = unify((*shape)[k], (*x)[k], "dims outside the axis");
      else
        sizes.push_back((*x)[k]);
    }
  }
  if (!shape) return shape;
  std::int64_t sum = 0;
  Dim open;
  std::size_t count = 0;
  for (const Dim& size : sizes) {
    if (size.is_known())
      sum += size.value();
    else {
      open = size;
      ++count;
    }
  }
  const bool all = sizes.size() == parts.size();
  const bool one = all && count == 1 && sum == 0;
  (*shape)[static_cast<std::size_t>(axis)] = all && count == 0 ? Dim(sum) : one ? open : Dim();
  return shape;
}

std::vector<AxisRole> concat_roles(const Node& node, std::size_t rank) {
  const std::int64_t axis = normalize_axis(concat_axis(node), rank);
  std::vector<AxisRole> roles;
  for (std::int64_t k = 0; k < static_cast<std::int64_t>(rank); ++k)
    roles.push_back(k == axis ? AxisRole{}
                              : AxisRole{.kind = AxisRole::Kind::output, .output_axis = k});
  return roles;
}

OpCall make_concat(std::int64_t axis) {
  OpCall call{.op_type = "Concat"};
  call.attributes["axis"] = axis;
  return call;
}

std::int64_t concat_axis(const Node& node) {
  return node.domain().empty() && node.opset() < 4 ? get_int(node, "axis", 1)
                                                   : require_int(node, "axis");
}

OPERATORS(concat_split) {
  registry.add(OpDef{
      .name = "Concat", .infer = infer_concat, .prepare = prepare_concat, .axes = concat_axes});
  registry.add(OpDef{.name = "Split", .infer = infer_split, .prepare = prepare_split});
}

}  // namespace onnxpress
