#include "graph/ops/pad.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/constant.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using Ints = std::vector<std::int64_t>;

PadMode parse_mode(const Node& node) {
  const std::string mode = get_string(node, "mode", "constant");
  if (mode == "constant") return PadMode::constant;
  if (mode == "reflect") return PadMode::reflect;
  if (mode == "edge") return PadMode::edge;
  require(mode == "wrap", "attribute 'mode': expected constant, reflect, edge or wrap, found '{}'",
          mode);
  return PadMode::wrap;
}

Ints attribute_pads(const Node& node) {
  return require_ints(node, node.opset() < 2 ? "paddings" : "pads");
}

// Pads for all axes from those of `axes` (opset 18).
Ints spread(const Ints& pads, const std::optional<Ints>& axes, std::size_t rank) {
  const std::size_t count = axes ? axes->size() : rank;
  require(pads.size() == 2 * count, "expected {} pads, found {}", 2 * count, pads.size());
  if (!axes) return pads;
  normalize_axes(*axes, rank);
  Ints all(2 * rank, 0);
  for (std::size_t i = 0; i < count; ++i) {
    const auto axis = static_cast<std::size_t>(normalize_axis((*axes)[i], rank));
    all[axis] = pads[i];
    all[rank + axis] = pads[count + i];
  }
  return all;
}

std::int64_t padded_size(std::int64_t size, std::int64_t before, std::int64_t after) {
  // Positions in the input, which are up to twice a pad away from one another, are computed too.
  constexpr std::int64_t most = std::int64_t{1} << 61;
  std::int64_t count = 0;
  require(std::min(before, after) >= -most && std::max(before, after) <= most,
          "expected pads of at most {} elements, found {} and {}", most, before, after);
  require(!__builtin_add_overflow(size, before, &count) &&
              !__builtin_add_overflow(count, after, &count) && count >= 0,
          "pads {} and {} leave no axis of {}", before, after, size);
  return count;
}

// The input's index for each index of a padded axis; -1 outside in constant mode.
Ints source_indices(PadMode mode, std::int64_t size, std::int64_t before, std::int64_t count) {
  require(size > 0 || mode == PadMode::constant || count == 0,
          "an empty axis has nothing to pad with");
  Ints indices(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t at = i - before;
    if (at < 0 || at >= size) {
      if (mode == PadMode::constant) {
        at = -1;
      } else if (mode == PadMode::edge) {
        at = std::clamp<std::int64_t>(at, 0, size - 1);
      } else if (mode == PadMode::wrap) {
        at = (at % size + size) % size;
      } else {  // mirrored at the border cells, again and again
        const std::int64_t period = std::max<std::int64_t>(1, 2 * (size - 1));
        at = (at % period + period) % period;
        if (at >= size) at = period - at;
      }
    }
    indices[static_cast<std::size_t>(i)] = at;
  }
  return indices;
}

// Neighbours of a padded axis that copy neighbours of the input (or, at source -1, the fill value).
struct Run {
  std::int64_t start, source, count;
};

std::vector<Run> runs_of(const Ints& sources) {
  std::vector<Run> runs;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (!runs.empty()) {
      Run& last = runs.back();
      const std::int64_t next = last.source < 0 ? -1 : last.source + last.count;
      if (sources[i] == next) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({static_cast<std::int64_t>(i), sources[i], 1});
  }
  return runs;
}

void pad(KernelContext& context, PadMode mode, const Ints& pads, const Tensor& fill) {
  const Tensor& x = context.required_input(0);
  const std::size_t rank = x.rank();
  Dims dims;
  for (std::size_t i = 0; i < rank; ++i)
    dims.push_back(padded_size(x.dim(i), pads[i], pads[rank + i]));
  ElementSink sink(context, 0, x.dtype(), dims);
  if (element_count(dims) == 0) return sink.finish();
  std::vector<Ints> sources;
  for (std::size_t i = 0; i < rank; ++i)
    sources.push_back(source_indices(mode, x.dim(i), pads[i], dims[i]));
  const auto strides = row_strides(x.dims());
  const std::int64_t inner = rank > 0 ? dims.back() : 1;
  const std::vector<Run> runs = runs_of(rank > 0 ? sources.back() : Ints{0});
  const std::int64_t rows = element_count(dims) / inner;
  context.pool().parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t rest = row;
      std::int64_t from = 0;
      bool outside = false;
      for (std::size_t axis = rank > 0 ? rank - 1 : 0; axis-- > 0; rest /= dims[axis]) {
        const std::int64_t source = sources[axis][static_cast<std::size_t>(rest % dims[axis])];
        outside = outside || source < 0;
        from += source * strides[axis];
      }
      for (const Run& run : runs) {
        if (outside || run.source < 0)
          for (std::int64_t i = 0; i < run.count; ++i)
            sink.put(row * inner + run.start + i, fill, 0);
        else
          sink.put(row * inner + run.start, x, from + run.source, run.count);
      }
    }
  });
  sink.finish();
}

// What zero is in `type`, which is `moved` where it is padded.
Tensor zero_of(DType type, DType moved) {
  return type == DType::string ? Tensor::of_strings({}, {""}) : Tensor(moved, {});
}

Kernel prepare_pad(const PrepareContext& prepare) {
  return [&node = prepare.node(), mode = parse_mode(prepare.node())](KernelContext& context) {
    const std::size_t rank = context.required_input(0).rank();
    const Tensor* axes = context.input(3);
    const Ints pads =
        node.opset() < 11
            ? spread(attribute_pads(node), std::nullopt, rank)
            : spread(context.required_input(1).to_ints(),
                     axes != nullptr ? std::optional(axes->to_ints()) : std::nullopt, rank);
    const DType type = context.required_input(0).dtype();
    move(context, [&](KernelContext& inner) {
      const DType moved = inner.required_input(0).dtype();
      const Tensor* given = node.opset() < 11 ? nullptr : context.input(2);
      if (given != nullptr)
        require(given->size() == 1 && given->dtype() == type, "expected one {} to pad with",
                name(type));
      Tensor fill;
      if (given != nullptr)
        fill = moved == type ? *given : given->cast(moved);
      else if (node.opset() < 11 && type != DType::string)
        fill = Tensor::scalar(get_float(node, "value", 0)).cast(moved);
      else
        fill = zero_of(type, moved);
      pad(inner, mode, pads, fill);
    });
  };
}

void infer_pad(InferContext& context) {
  const Node& node = context.node();
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  std::optional<Ints> pads;
  if (node.opset() < 11) {
    pads = spread(attribute_pads(node), std::nullopt, x->size());
  } else if (const auto given = context.input_ints(1)) {
    const auto axes = context.input_ints(3);
    if (!context.has_input(3) || axes) pads = spread(*given, axes, x->size());
  }
  Shape shape(x->size());
  for (std::size_t i = 0; pads && i < x->size(); ++i) {
    const std::int64_t before = (*pads)[i];
    const std::int64_t after = (*pads)[x->size() + i];
    std::int64_t size = 0;
    if ((*x)[i].is_known()) {
      const bool fits = !__builtin_add_overflow((*x)[i].value(), before, &size) &&
                        !__builtin_add_overflow(size, after, &size) && size >= 0;
      require(fits, "pads {} and {} leave no axis of {}", before, after, (*x)[i].value());
      shape[i] = size;
    } else if (before == 0 && after == 0) {
      shape[i] = (*x)[i];
    }
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes pad_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  const PadAttrs attrs = PadAttrs::from(node);
  if (x == nullptr || !x->type.shape || !attrs.pads) return axes;
  const std::size_t rank = x->type.shape->size();
  if (attrs.pads->size() != 2 * rank) return axes;
  for (std::size_t i = 0; i < rank; ++i) {
    const bool is_kept = (*attrs.pads)[i] == 0 && (*attrs.pads)[i + rank] == 0;
    axes[0].push_back(is_kept ? AxisRole{.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)}
                              : AxisRole{});
  }
  return axes;
}

}  // namespace

void pad_with_zeros(KernelContext& context, const std::vector<std::int64_t>& pads) {
  const DType type = context.required_input(0).dtype();
  move(context, [&](KernelContext& inner) {
    pad(inner, PadMode::constant, pads, zero_of(type, inner.required_input(0).dtype()));
  });
}

PadAttrs PadAttrs::from(const Node& node) {
  PadAttrs attrs{.mode = parse_mode(node)};
  const Value* x = node.input(0);
  const bool ranked = x != nullptr && x->type.shape.has_value();
  if (node.opset() < 11) {
    attrs.pads = attribute_pads(node);
    attrs.value = get_float(node, "value", 0);
    return attrs;
  }
  const auto pads = constant_ints(node.input(1));
  const auto axes = constant_ints(node.input(3));
  if (pads && node.input(3) == nullptr)
    attrs.pads = pads;
  else if (pads && axes && ranked)
    attrs.pads = spread(*pads, axes, x->type.shape->size());
  if (node.input(2) == nullptr) {
    attrs.value = 0;
  } else if (const auto value = constant_contents(node.input(2));
             value && value->size() == 1 && value->dtype() != DType::string) {
    attrs.value = value->cast(DType::float64).data<double>()[0];
  }
  return attrs;
}

OPERATORS(pad) {
  registry.add(OpDef{.name = "Pad", .infer = infer_pad, .prepare = prepare_pad, .axes = pad_axes});
}

}  // namespace onnxpress
